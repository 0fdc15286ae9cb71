"""What the audits of all runs saw in their data, by the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.plugins.dashboard.summary import Summary

ORDER = ("error", "warn")
TONES = {"error": "bad", "warn": "warn"}


@dataclass(frozen=True, slots=True)
class SeenFinding:
    """A finding as the newest run with it tells it; ``runs`` are all that have it."""

    check: str
    severity: str
    tone: str
    because: str
    fixed: bool
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataView:
    """One source of rows: the newest run's count of rows, the runs on it, the worst first."""

    name: str
    rows: int | None
    runs: tuple[str, ...]
    findings: tuple[SeenFinding, ...]


def data_views(summaries: Sequence[Summary]) -> tuple[DataView, ...]:
    """The sources of all finished runs: those with findings first, then by name."""
    named: dict[str, list[Summary]] = {}
    for one in sorted(summaries, key=lambda one: -one.when):
        if one.state == "finished":
            named.setdefault(one.data or "rows without a name", []).append(one)
    views = [
        DataView(name, runs[0].rows, tuple(run.name for run in runs), _findings(runs))
        for name, runs in named.items()
    ]
    return tuple(sorted(views, key=lambda one: (not one.findings, one.name.casefold())))


def _findings(runs: Sequence[Summary]) -> tuple[SeenFinding, ...]:
    found: dict[tuple[str, str], list[tuple[Summary, str, bool]]] = {}
    for run in runs:
        for severity, check, because, fixed in run.findings:
            found.setdefault((severity, check), []).append((run, because, fixed))
    made = [
        SeenFinding(
            check.replace("_", " "),
            severity,
            TONES[severity],
            seen[0][1],
            seen[0][2],
            tuple(dict.fromkeys(run.name for run, _, _ in seen)),
        )
        for (severity, check), seen in found.items()
    ]
    return tuple(sorted(made, key=lambda one: (ORDER.index(one.severity), one.check)))
