"""The contract of every check: its view, its result, its blind spots and its error rate."""

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
    """An example row of a finding: ``row`` of the source, a ``note`` on what it shows, and a row to
    compare it with, of the same table or of ``other_file``. A ``masked`` text is shown instead of
    the row's own."""

    row: int
    note: str
    other_row: int | None = None
    other_file: str | None = None
    masked: str | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finding and examples of it, the clearest first. Examples are for pages, not for
    ``result.json``."""

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
    """The result of a check: ``rows`` of the source, and their ``count`` if not all are listed. The
    ``Check`` adds its name."""
    row_numbers = tuple(map(int, rows))
    count = len(row_numbers) if count is None else count
    finding = Finding("", severity, score, count, row_numbers, because, remedy)
    return CheckResult(finding, tuple(examples))


def never_skipped(view: object) -> str:
    """The ``skip_reason`` of a check that never skips its view."""
    return ""


def any_table(table: Table) -> bool:
    """The ``applies_to`` of a check for every table."""
    return True


def has_texts(table: Table) -> bool:
    """Whether the rows are texts. The text of an image row is a hash of its content."""
    return "path" not in table.rows.column_names


def has_classes(table: Table) -> bool:
    """Whether each row has one class: not a number, several labels, a text or tags."""
    return table.columns.one_class and len(table.classes) > 1


@dataclass(frozen=True, slots=True)
class Check(Generic[V]):
    """A named check of the data.

    Parameters
    ----------
    name : the name of its findings.
    view_type : the type of its view (``quality/views.py``).
    run : view → its ``result``, or ``None``. It states its rule with the numbers, returns ``None``
        on clean data and where it cannot decide, and gives a score in [0, 1].
    cannot_see : what it misses, in a sentence for the user.
    error_rate : how often it is wrong, with the figures and where they were measured.
    applies_to : whether the check is applicable to a table.
    skip_reason : why the check is skipped for a view (no file to compare with, say); empty if it
        runs. A skipped check must not be reported as passed.
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
        # Quotations from rows must not show personal data or secrets, whatever the check is about:
        # the sentences of findings end up in logs, pages and issues.
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
    """Make a function a check and register it under its own name. ``Check`` has the parameters; the
    function's docstring is printed in ``docs/checks.md``."""

    def register(run: Callable[[V], CheckResult | None]) -> Check[V]:
        name = run.__name__
        return CHECKS.add(
            name, Check(name, view_type, run, cannot_see, error_rate, applies_to, skip_reason)
        )

    return register
