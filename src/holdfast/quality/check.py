"""The contract of every check: its view, its result, what it misses, how often it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from holdfast.core.discovery import Registry
from holdfast.core.records import Finding, Severity
from holdfast.data.table import Table
from holdfast.quality.clean.texts import mask_personal

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CheckExample:
    """A row to look at: ``row`` of the source, what is to be seen there, and the row beside it, of
    the same table or of ``other_file``. ``masked`` texts are shown in place of the row's own."""

    row: int
    note: str
    other_row: int | None = None
    other_file: str | None = None
    masked: str | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finding, and examples of it, the plainest first; they are for a page, not for a result."""

    finding: Finding
    examples: tuple[CheckExample, ...] = ()


def result(
    rows: Iterable[int],
    because: str,
    remedy: str,
    *,
    score: float,
    severity: Severity = "warn",
    count: int | None = None,
    examples: Iterable[CheckExample] = (),
) -> CheckResult:
    """What a check found: ``rows`` of the source, of all ``count`` where not all are listed. The
    ``Check`` puts its name to it."""
    row_numbers = tuple(map(int, rows))
    count = len(row_numbers) if count is None else count
    finding = Finding("", severity, score, count, row_numbers, because, remedy)
    return CheckResult(finding, tuple(examples))


def never_skipped(view: object) -> str:
    """For a check that never skips its view."""
    return ""


def any_table(table: Table) -> bool:
    """For a check that applies to every table."""
    return True


def has_texts(table: Table) -> bool:
    """For a check of texts: not where a row is an image, whose text is a hash of its content."""
    return "path" not in table.rows.column_names


def has_classes(table: Table) -> bool:
    """For a check of classes: not where a label is a number, several labels, a text or tags."""
    return table.columns.one_class and len(table.classes) > 1


@dataclass(frozen=True, slots=True)
class Check(Generic[V]):
    """A named check of the data.

    Parameters
    ----------
    name : that of its findings.
    view_type : the type of its view (``quality/views.py``).
    run : that view → its ``result``, or ``None``. It states its rule with the numbers, is silent
        where it cannot tell and on clean data, and gives a score in [0, 1].
    cannot_see : what it misses, in a sentence for the user.
    error_rate : how often it is wrong, with the figures and where they were measured.
    applies_to : whether it means anything for a table.
    skip_reason : why a view holds nothing to check (no file to compare with, say), empty where it
        does: what was not checked must not be called fine.
    """

    name: str
    view_type: type[V]
    run: Callable[[V], CheckResult | None]
    cannot_see: str
    error_rate: str
    applies_to: Callable[[Table], bool] = any_table
    skip_reason: Callable[[V], str] = never_skipped

    def __call__(self, view: V) -> CheckResult | None:
        check_result = self.run(view)
        if check_result is None:
            return None
        # What is quoted of a row shows no personal data and no secret whole, whatever was looked
        # for: a sentence of a finding ends in logs, pages and issues.
        finding = replace(
            check_result.finding,
            check=self.name,
            because=mask_personal(check_result.finding.because),
        )
        examples = tuple(
            replace(one, note=mask_personal(one.note)) for one in check_result.examples
        )
        return CheckResult(finding, examples)


CHECKS: Registry[Check[Any]] = Registry("audit check", "audit")


def check(
    view_type: type[V],
    *,
    cannot_see: str,
    error_rate: str,
    applies_to: Callable[[Table], bool] = any_table,
    skip_reason: Callable[[V], str] = never_skipped,
) -> Callable[[Callable[[V], CheckResult | None]], Check[V]]:
    """Make a function a check and register it, under its own name (``Check`` has the parameters;
    its docstring stands in ``docs/checks.md``)."""

    def register(run: Callable[[V], CheckResult | None]) -> Check[V]:
        name = run.__name__
        return CHECKS.add(
            name, Check(name, view_type, run, cannot_see, error_rate, applies_to, skip_reason)
        )

    return register
