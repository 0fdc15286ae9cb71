"""What an audit came to: a value, which says itself as JSON, as a page and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.printable import brief
from holdfast.core.records import Decision, Finding, to_json
from holdfast.core.wording import counted
from holdfast.quality.checks import all_checks

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Leak:
    """A row of the source that copies one of another file; ``similarity`` in (0, 1], 1 where they
    are equal but for case, space and punctuation."""

    row: int
    other_file: str
    other_row: int
    similarity: float


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """How doubtful the label of a row is: ``score`` in [0, 1], and what it might be instead."""

    row: int
    given: str
    suggested: str
    score: float


@dataclass(frozen=True, slots=True)
class LabelFirst:
    """The rows without a label in ``file``, the one to label first in front, 2,000 at most of
    ``count``: ``ranked`` by what they would teach, else at random, with the reason; ``shown`` are
    the texts of the first."""

    file: str
    count: int
    ranked: bool
    because: str
    rows: tuple[int, ...]
    shown: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What stands under ``label_next``; texts are left to the file."""
        return {
            "file": self.file,
            "count": self.count,
            "ranked": self.ranked,
            "because": self.because,
            "rows": list(self.rows),
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """An example of a finding as a person reads it: the row's text and label, and those of the row
    beside it, where there is one; ``note`` says what is to be seen."""

    row: int
    text: str
    label: str
    note: str
    other_row: int | None = None
    other_file: str | None = None
    other_text: str = ""
    other_label: str = ""


@dataclass(frozen=True)
class Audit:
    """What was found in ``source``: ``findings`` the worst first, each with ``examples`` by its
    place; the rows that copy each other (``duplicate_groups``, those without a text among them),
    those that stand in other files (``leaks``), every row by how doubtful its label is
    (``label_issues``), and which of those without one to label first (``label_next``).

    ``rows`` are those of the source; ``columns`` what was read as what; ``label_counts`` rows of
    each class. ``seconds`` of each check that looked, ``idle`` those that mean nothing for such
    rows, ``unseen`` why a part was not looked at, by its name. ``decisions`` were made unasked.
    ``broken`` are checks that fell over, which is a defect of Holdfast: all else is whole.
    """

    source: str
    task: str
    rows: int
    columns: Mapping[str, Any]
    label_counts: Mapping[str, int]
    findings: tuple[Finding, ...]
    examples: Mapping[int, tuple[Shown, ...]]
    duplicate_groups: tuple[tuple[int, ...], ...] = ()
    leaks: tuple[Leak, ...] = ()
    label_issues: tuple[LabelIssue, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    blind: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    unseen: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    against: tuple[str, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)
    label_next: LabelFirst | None = None

    @property
    def worst(self) -> str:
        """``error``, ``warn``, ``info``, or empty where nothing was found."""
        return self.findings[0].severity if self.findings else ""

    @property
    def silent(self) -> tuple[str, ...]:
        """The checks that looked and found nothing."""
        found = {finding.check for finding in self.findings}
        return tuple(name for name in self.seconds if name not in found)

    def to_json(self) -> dict[str, Any]:
        """What ``holdfast audit --json`` prints, schema 1."""
        return {
            "schema": SCHEMA,
            "source": self.source,
            "task": self.task,
            "rows": self.rows,
            "columns": to_json(dict(self.columns)),
            "label_counts": dict(self.label_counts),
            "findings": [_finding(finding) for finding in self.findings],
            "duplicate_groups": [list(group) for group in self.duplicate_groups],
            "label_issues": [to_json(issue) for issue in self.label_issues],
            "label_next": None if self.label_next is None else self.label_next.to_json(),
            "leaks": [to_json(leak) for leak in self.leaks],
            "against": list(self.against),
            "looked_at": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
            "not_looked_at": dict(self.unseen),
            "decisions": [decision.to_json() for decision in self.decisions],
        }

    def shown(self) -> dict[int, list[dict[str, Any]]]:
        """The examples of each finding by its place, in plain values, for a page."""
        return {place: to_json(list(found)) for place, found in self.examples.items()}

    def __repr__(self) -> str:
        # The finding itself stands in its own words; a prompt needs which there are.
        found = ", ".join(dict.fromkeys(one.check for one in self.findings)) or "nothing found"
        return brief("Audit", f"{counted(self.rows, 'row')} of {self.source}", found)

    def _repr_html_(self) -> str:
        from holdfast.report.audit import audit_snippet

        return audit_snippet(self.to_json(), self.shown())


def _finding(finding: Finding) -> dict[str, Any]:
    """A finding with what its check cannot see and how often it is wrong; one of the reading, which
    is no check, misses nothing of what it names."""
    checks, told = all_checks(), {"cannot_see": "", "error_rate": ""}
    if finding.check in checks:
        check = checks[finding.check]
        told = {"cannot_see": check.cannot_see, "error_rate": check.error_rate}
    return {**finding.to_json(), **told}
