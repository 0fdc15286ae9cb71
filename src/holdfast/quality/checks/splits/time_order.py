"""Test rows that are older than what is trained on: the score is then no forecast."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Floats
from holdfast.quality.check import CheckResult, check, result
from holdfast.quality.pairs import LISTED
from holdfast.quality.views import Copied, OtherColumns, alone

# A column in which as many of the cells are dates is one of dates.
PARSED = 0.95
NEEDED = 20


def undated(copied: Copied) -> str:
    """Why there is nothing to see."""
    shared = {name for beside in copied.beside.values() for name in beside.names}
    if alone(copied) or shared & {*copied.rows.beside.names}:
        return alone(copied)
    return "no column beside the texts stands in both files"


@check(
    Copied,
    cannot_see="Dates in another form than 2024-01-31, and rows without dates.",
    error_rate="Exact in what it compares; whether time matters for the task it cannot tell.",
    nothing=undated,
)
def time_order(copied: Copied) -> CheckResult | None:
    """Compares the dates of the source with those of another table, by a column that both have:
    ISO 8601 dates or times. Warns where half of the other's rows or more are older than the newest
    of the source. Score: that share. Silent where the other table begins after the source ends."""
    worst: tuple[float, str, str, Floats, Floats] | None = None
    for name in copied.others:
        theirs = copied.beside.get(name, OtherColumns())
        for column in copied.rows.beside.names:
            if column not in theirs.names:
                continue
            here, there = dates(copied.rows.beside[column]), dates(theirs[column])
            if here is None or there is None:
                continue
            share = float((there[~np.isnan(there)] < np.nanmax(here)).mean())
            if share >= 0.5 and (worst is None or share > worst[0]):
                worst = (share, name, column, here, there)
    if worst is None:
        return None
    share, name, column, here, there = worst
    newer = np.flatnonzero(here > np.nanmin(there))
    source = copied.gathered.tables[name].source
    return result(
        copied.rows.ids[newer][:LISTED],
        f"by {column!r}, {share:.0%} of the rows of {source} ({_span(there)}) are older than the "
        f"newest row here ({_span(here)}): a score on them tells how well it does on days that it "
        "has seen, not on those to come",
        "Where it is to be used on later rows, hold it against rows that are newer than all of "
        "these.",
        score=share,
        count=len(newer),
    )


def dates(values: Sequence[str | None]) -> Floats | None:
    """Seconds since 1970 of a column [n], NaN where a cell is empty or none; ``None`` where it is
    no column of dates."""
    if len(values) < NEEDED:
        return None
    filled = [value.strip() for value in values if value and value.strip()]
    # A number such as 20240131 is a date to the standard, and an id to most files.
    if len(filled) < PARSED * len(values) or not all("-" in value for value in filled[:NEEDED]):
        return None
    found = np.array([_seconds(value) for value in values])
    return found if np.isfinite(found).mean() >= PARSED else None


def _seconds(value: str | None) -> float:
    try:
        moment = datetime.datetime.fromisoformat((value or "").strip())
    except ValueError:
        return float("nan")
    # Without a zone a time is taken as it is: columns are compared with themselves.
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def _span(seconds: Floats) -> str:
    ends = (np.nanmin(seconds), np.nanmax(seconds))
    return " to ".join(
        datetime.datetime.fromtimestamp(float(end), datetime.UTC).date().isoformat() for end in ends
    )
