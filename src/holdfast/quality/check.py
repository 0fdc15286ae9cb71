"""One contract for every check: what it sees and says, what it cannot see, how often it errs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from holdfast.core.discovery import Registry
from holdfast.core.records import Finding
from holdfast.data.table import Table
from holdfast.quality.clean.mask import masked

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


def something(view: object) -> str:
    """A check that always has something to see in its view."""
    return ""


def anything(table: Table) -> bool:
    """A check that holds for every table."""
    return True


def with_texts(table: Table) -> bool:
    """A check of what is written: not where a row is a picture, whose text is a mark of its
    content."""
    return "path" not in table.rows.column_names


def with_classes(table: Table) -> bool:
    """A check of classes: not where a label is a number, or several, or a text, or tags."""
    return table.columns.label_kind in (None, "class") and len(table.classes) > 1


@dataclass(frozen=True, slots=True)
class Check(Generic[V]):
    """A named look at the data.

    Parameters
    ----------
    name : that of its findings.
    sees : the type of the view it is given (``quality/views.py``).
    run : that view → what it found, or ``None``. It states its rule with the numbers, stays silent
        where it cannot tell, says nothing silly of clean data, and gives a score in [0, 1].
    cannot_see : what it misses, in a sentence for the user.
    error_rate : how often it is wrong, with the figures and where they were measured.
    holds_for : whether it means anything for a table.
    nothing : why there is nothing to be seen in a view (no file to hold it against, say), or
        nothing at all where there is: what was not looked at must not be called fine.
    """

    name: str
    sees: type[V]
    run: Callable[[V], CheckResult | Finding | None]
    cannot_see: str
    error_rate: str
    holds_for: Callable[[Table], bool] = anything
    nothing: Callable[[V], str] = something

    def __call__(self, view: V) -> CheckResult | None:
        found = self.run(view)
        return without_personal(CheckResult(found) if isinstance(found, Finding) else found)


def without_personal(found: CheckResult | None) -> CheckResult | None:
    """What is quoted of a row shows no personal data and no secret whole, whatever was looked
    for: a sentence of a finding ends in logs, pages and issues."""
    if found is None:
        return None
    because = masked(found.finding.because)
    examples = tuple(replace(one, note=masked(one.note)) for one in found.examples)
    return replace(found, finding=replace(found.finding, because=because), examples=examples)


CHECKS: Registry[Check[Any]] = Registry("audit check", "audit")


def add(check: Check[V]) -> Check[V]:
    """Register a check under its name."""
    return CHECKS.add(check.name, check)
