"""What ``holdfast tune --set search=capacity`` prints of the sizes that it tried.

What ``holdfast tune`` prints of its trials: what won, what it may be expected to score, what the
search inflated, what mattered, and a short table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from holdfast.core.wording import counted
from holdfast.terminal.say import clock, entry


def size_lines(result: Mapping[str, object], columns: int) -> list[str]:
    """The answer and a line a size; none where no sizes were tried."""
    block = result.get("capacity")
    if not isinstance(block, Mapping):
        return []
    from holdfast.report.view.capacity import capacity_view

    view = capacity_view(block)
    lines = ["", *textwrap.wrap(view.answer[:1].upper() + view.answer[1:], columns), ""]
    for name, value, gap, verdict, _, quick in view.lines:
        told = "  ".join(filter(None, (value, gap, verdict, quick)))
        lines += textwrap.wrap(
            f"  {name:24} {told}", columns, subsequent_indent=" " * 27, break_on_hyphens=False
        )
    return [*lines, "", *textwrap.wrap(view.how, columns)]


# Trials that the table shows; the report has all.
MOST_LINES = 12
STATES = {"pruned": "ended early", "failed": "failed"}


class TrialJson(TypedDict):
    """One trial of a study's table."""

    trial: int
    state: str
    seen: float | None
    seconds: float
    settings: dict[str, object]


def study_lines(result: Mapping[str, object], columns: int) -> list[str]:
    """The lines; none where a run has no trials of settings."""
    study = result.get("study")
    if not isinstance(study, Mapping) or "trials_table" not in study or "capacity" in result:
        return []
    from holdfast.report.view.study import study_view

    view = study_view(study)
    lines = ["", *textwrap.wrap(view.answer, columns), ""]
    for name, value in view.entries:
        lines += entry(name, value, columns)
    lines += ["", *_table(study, columns)]
    return lines


def _table(study: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.report.view.study import score, settings_of

    rows: Sequence[TrialJson] = study["trials_table"]
    shown = _chosen(study, rows)
    yield f"  {'Trial':<7}{'Seen':>8}{'Time':>12}  Settings"
    for row in shown:
        mark = "*" if row["trial"] == study["best"] else " "
        value = STATES.get(row["state"]) or score(study, row["seen"])
        start = f" {mark}{row['trial']:<7}{value:>8}{clock(row['seconds']):>12}  "
        if len(value) > 8:
            start = f" {mark}{row['trial']:<4}{value:>11}{clock(row['seconds']):>12}  "
        told = settings_of(row)
        yield from textwrap.wrap(
            told,
            columns,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
            max_lines=2,
            placeholder=" …",
        )
    left = len(rows) - len(shown)
    more = f"; {counted(left, 'more trial')} in the report" if left else ""
    yield f"  * is kept{more}"


def _chosen(study: Mapping[str, Any], rows: Sequence[TrialJson]) -> list[TrialJson]:
    """The kept one, the default, and the best seen, in the order of what was seen."""
    sign = -1 if study["higher_is_better"] else 1
    named = {study["best"], 0}

    def place(row: TrialJson) -> tuple[bool, bool, float, int]:
        seen = row["seen"]
        whole = row["state"] == "complete" and seen is not None
        return (row["trial"] not in named, not whole, sign * (seen or 0), row["trial"])

    first = sorted(rows, key=place)[:MOST_LINES]
    return sorted(first, key=lambda row: place(row)[1:])
