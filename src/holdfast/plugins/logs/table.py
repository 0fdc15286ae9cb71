"""Rows of a log to series: the axis column, parsing of numbers, and rows that a resumed run
rewrote.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.curves import Series
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.printable import printable
from holdfast.core.records import Decision, Floats
from holdfast.plugins.logs import Log, not_a_log

STEPS = (
    *("step", "steps", "_step", "global_step", "trainer/global_step", "current_steps"),
    *("iter", "iteration", "iterations"),
)
EPOCHS = ("epoch", "epochs", "current_epoch")
MAX_POSITION = 2.0**53  # beyond it two neighbouring steps are one number
# Below it sums of squares stay finite.
MAX_VALUE = 1e100
# 160 MB. A million rows of ten columns take some ten seconds.
MAX_NUMBERS = 10_000_000
MAX_COLUMNS = 200_000
MAX_NAME_LENGTH = 300
# Half of one, or a thousand and more: which of the two it is, a cell does not say.
WITH_COMMA = re.compile(r"[-+]?\d+,\d+%?")
TENSOR = re.compile(r"tensor\(\s*([^,)\s]+)")


def parse_number(value: object) -> float | None:
    """A cell as a number: also ``"0.5"``, ``"12 %"``, ``"NaN"``, ``"tensor(0.5)"``; ``None`` for an
    empty cell and for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    parsed = _float(value)
    if parsed is not None or not isinstance(value, str):
        return parsed
    text = value.strip()
    tensor = TENSOR.match(text)
    if tensor:
        text = tensor[1]
    if text.endswith("%"):
        share = _float(text[:-1])
        return None if share is None else share / 100
    return _float(text) if tensor else None


def file_decision(name: str, file: Path, because: str) -> Decision:
    """The decision that one file of a folder is read; control characters in its name are
    removed.
    """
    return Decision(name, printable(str(file), 2 * MAX_NAME_LENGTH), because)


def parse_duration(text: str) -> float | None:
    """``hours:minutes:seconds`` with any part from the left missing, in seconds; also with ``"1
    day, "`` before it. ``None`` for anything else.
    """
    days, _, rest = text.rpartition(",")
    parts = rest.strip().split(":")
    try:
        values = [float(part) for part in parts]
        day_seconds = float(days.split()[0]) * 86_400 if days else 0.0
    except (ValueError, IndexError):
        return None
    return day_seconds + sum((v * 60.0**power for power, v in enumerate(reversed(values))), 0.0)


def _float(value: float | str) -> float | None:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


class _ColumnNumbers:
    """The numbers of one column, with the rows that they are from."""

    __slots__ = ("rows", "values")

    def __init__(self) -> None:
        # Eight bytes a number; a Python list takes 32.
        self.rows = array("q")
        self.values = array("d")

    def __len__(self) -> int:
        return len(self.rows)

    def reverse(self, count: int) -> None:
        """Turn the order of the ``count`` rows round."""
        self.rows = array("q", (count - 1 - row for row in reversed(self.rows)))
        self.values.reverse()


def from_rows(rows: Iterable[Mapping[str, Any]], source: str, log_name: str, **facts: Any) -> Log:
    """Build a log from its rows, oldest first.

    ``log_name`` names it in an error, ``facts`` are the other fields of ``Log``. Each row is read
    once, and only its numbers are kept.

    Positions come from a step column, else an epoch column, else the row's number. Rows whose
    positions only fall are read from the end, and steps that begin again in every epoch are counted
    on. Where positions go back otherwise, the run was resumed (or restarted): what was logged from
    there on is replaced. Of several values at one step the last counts; those inside one epoch are
    averaged. A value beyond 1e100 is taken as infinite.

    Raises ``DataError`` where there is no number, where there are more than can be held, and for a
    position that no run can reach.
    """
    cells, count = _numbers(rows, log_name)
    axis, name = _axis(cells, count)
    positions = None
    if name is not None:
        positions = _positions(cells.pop(name), count, log_name, name)
        if _only_falls(positions):
            notify(Decision("order of rows", "newest first", f"the {axis}s only fall"))
            positions = positions[::-1]
            for one in cells.values():
                one.reverse(count)
        # A log that gives one column after the other goes back between them.
        if axis == "step" and any(_goes_back(positions[one.rows]) for one in cells.values()):
            positions = _counted_on(positions, _epoch_of_rows(cells, count))
    series: dict[str, Series] = {}
    n_replaced = n_infinite = 0
    for column, one in cells.items():
        one_series, replaced, n_huge = _series(_unique_name(column, series), one, positions, axis)
        n_replaced, n_infinite = n_replaced + replaced, n_infinite + n_huge
        if len(one_series):
            series[one_series.name] = one_series
    if not series:
        raise not_a_log(log_name, "has no number except its positions")
    if n_replaced:
        replaced_words = f"the later ones, {n_replaced} values replaced"
        because = "positions go back, so the run was resumed or restarted there"
        notify(Decision("rows written twice", replaced_words, because))
    if n_infinite:
        because = "no loss and no metric is that large: the training diverged there"
        notify(Decision("values beyond 1e100", f"{n_infinite} taken as infinite", because))
    epochs = _epochs(series) if axis != "epoch" else None
    return Log(source, axis, series, epochs=epochs, **facts)


def _numbers(
    rows: Iterable[Mapping[str, Any]], log_name: str
) -> tuple[dict[str, _ColumnNumbers], int]:
    """The numbers of every column, in the order in which the columns first appear."""
    cells: defaultdict[str, _ColumnNumbers] = defaultdict(_ColumnNumbers)
    unread, first_unread = 0, ""
    count = numbers = 0
    for row in rows:
        for column, cell in row.items():
            value = parse_number(cell)
            if value is None or not isinstance(column, str):
                if isinstance(cell, str) and WITH_COMMA.fullmatch(cell.strip()):
                    first_unread = first_unread or cell.strip()
                    unread += 1
                continue
            one = cells[column]
            one.rows.append(count)
            one.values.append(value)
            numbers += 1
        count += 1
        if numbers > MAX_NUMBERS or len(cells) > MAX_COLUMNS:
            rule = f"has more than {MAX_NUMBERS:,} numbers or {MAX_COLUMNS:,} columns; "
            rule += "keep every tenth line, or the columns of losses and metrics"
            raise not_a_log(log_name, rule)
    if unread:
        because = f"numbers need a decimal point, and these have a comma, such as {first_unread!r}"
        notify(Decision("cells left out", f"{unread:,}", because, prominent=True))
    return cells, count


def _unique_name(column: str, used_names: Mapping[str, Series]) -> str:
    """The column's name without control characters; two columns keep different names."""
    printable_name = printable(column, MAX_NAME_LENGTH)
    number_after = 2
    while printable_name in used_names:
        printable_name = f"{printable(column, MAX_NAME_LENGTH)} ({number_after})"
        number_after += 1
    return printable_name


def _axis(cells: Mapping[str, _ColumnNumbers], count: int) -> tuple[str, str | None]:
    """The axis and its column: the first known name that most rows fill."""
    for axis, names in (("step", STEPS), ("epoch", EPOCHS)):
        for column, one in cells.items():
            if column.strip().lower() in names and 2 * len(one) > count:
                return axis, column
    return "row", None


def _positions(one: _ColumnNumbers, count: int, log_name: str, name: str) -> Floats:
    """The position of every row, NaN where it has none."""
    values = np.frombuffer(one.values, dtype=np.float64)
    out_of_range = values[np.isfinite(values) & (np.abs(values) > MAX_POSITION)]
    if len(out_of_range):
        remedy = "Correct that line, or remove the column: rows are then counted."
        rule = f"has a {name.strip()} that no run can reach"
        raise DataError(log_name, rule, float(out_of_range[0]), remedy)
    at = np.full(count, np.nan)
    at[np.frombuffer(one.rows, dtype=np.int64)] = values
    # A step of infinity has no place on an axis.
    at[np.isinf(at)] = np.nan
    return at


def _goes_back(positions: Floats) -> bool:
    return bool((np.diff(positions[~np.isnan(positions)]) < 0).any())


def _only_falls(positions: Floats) -> bool:
    known = positions[~np.isnan(positions)]
    # Two values may as well be a run that was restarted.
    return len(np.unique(known)) > 2 and bool((np.diff(known) <= 0).all())


def _epoch_of_rows(cells: Mapping[str, _ColumnNumbers], count: int) -> Floats:
    """The epoch of every row, the last one named before it; NaN before the first."""
    epochs = np.full(count, np.nan)
    for column, one in cells.items():
        if column.strip().lower() in EPOCHS:
            epochs[np.frombuffer(one.rows, dtype=np.int64)] = one.values
            break
    named = np.where(np.isnan(epochs), -1, np.arange(count))
    last = np.maximum.accumulate(named) if count else named
    return np.where(last >= 0, epochs[last], np.nan)


def _counted_on(positions: Floats, epochs: Floats) -> Floats:
    """Steps over all epochs, from steps that begin again in each: the epoch rises wherever they go
    back, or, where no epoch is named, they go back twice or more, always from the same step to the
    first one. Other steps as they are.
    """
    rows = np.flatnonzero(~np.isnan(positions))
    steps = positions[rows]
    back = np.flatnonzero(np.diff(steps) < 0)
    if not len(back):
        return positions
    before, after = epochs[rows[back]], epochs[rows[back + 1]]
    # Epochs that stand on the last row of each alone say nothing of where the next begins.
    if (np.isnan(before) | np.isnan(after) | (after == before)).all():
        counted = len(back) > 1 and (steps[back] == steps[back[0]]).all()
        counted = counted and (steps[back + 1] == steps[0]).all()
        because = "they go back to the first step, always from the same one"
    else:
        counted, because = (after > before).all(), "they go back where the epoch rises"
    if not counted:
        return positions
    notify(Decision("steps", "counted over all epochs", because))
    rising = np.diff(steps)[np.diff(steps) > 0]
    # Between two epochs lies one stride.
    stride = float(rising.min()) if len(rising) else 1.0
    more = np.zeros(len(steps))
    more[back + 1] = steps[back] + np.maximum(0.0, stride - steps[back + 1])
    counted_on = positions.copy()
    counted_on[rows] = steps + np.cumsum(more)
    return counted_on


def _series(
    name: str, one: _ColumnNumbers, at: Floats | None, axis: str
) -> tuple[Series, int, int]:
    """A column as a series, how many of its points were replaced by later ones, and how many of its
    values are beyond the bounds.
    """
    rows = np.frombuffer(one.rows, dtype=np.int64)
    # A copy, since the log's own numbers must not be changed.
    values: Floats = np.frombuffer(one.values, dtype=np.float64).copy()
    places: Floats = rows.astype(np.float64) if at is None else at[rows]
    known = np.isfinite(places)
    places, values = places[known], values[known]
    huge = np.isfinite(values) & (np.abs(values) > MAX_VALUE)
    values[huge] = np.copysign(np.inf, values[huge])
    replaced = 0
    if np.any(np.diff(places) <= 0):
        places, values, replaced = _in_order(places, values, axis)
    return Series(name, places, values), replaced, int(huge.sum())


def _in_order(places: Floats, values: Floats, axis: str) -> tuple[Floats, Floats, int]:
    """One value a position, positions rising: where they go back, later values replace what was
    there. Also how many positions were replaced.
    """
    at: list[float] = []
    values_at: list[list[float]] = []
    forgotten = 0
    for place, value in zip(places.tolist(), values.tolist(), strict=True):
        before = len(at)
        while at and at[-1] > place:
            at.pop()
            values_at.pop()
        if len(at) < before and at and at[-1] == place:
            at.pop()
            values_at.pop()
        forgotten += before - len(at)
        if at and at[-1] == place:
            values_at[-1].append(value)
        else:
            at.append(place)
            values_at.append([value])
    picked = [np.mean(one) if axis == "epoch" else one[-1] for one in values_at]
    return np.array(at, dtype=np.float64), np.array(picked, dtype=np.float64), forgotten


def _epochs(series: dict[str, Series]) -> Series | None:
    named = [c for c in series if c.strip().lower() in EPOCHS]
    numbers = series.pop(named[0]).finite if named else None
    return numbers if numbers is not None and len(numbers) else None
