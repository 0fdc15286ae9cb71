"""Rows of a log to series: which column is the axis, what is a number, what a resume rewrote."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from holdfast.core.curves import Series
from holdfast.core.errors import DataError
from holdfast.core.records import Decision

STEPS = ("step", "global_step", "_step", "trainer/global_step", "steps", "current_steps",
         "iteration", "iter", "iterations")  # fmt: skip
EPOCHS = ("epoch", "epochs", "current_epoch")
NOTHING = {"", "none", "null", "-", "--", "n/a", "na"}
TENSOR = re.compile(r"tensor\(\s*([^,)\s]+)")


@dataclass(frozen=True, slots=True)
class Log:
    """Everything numeric that a log holds, before anyone chose from it.

    ``columns`` are series by their name in the log. A metric whose name has no set is of the set
    ``unsided``: Keras writes ``accuracy`` for training, fastai for validation. Others as in
    ``Curves``.
    """

    source: str
    axis: str
    columns: Mapping[str, Series]
    unsided: Literal["train", "valid"] = "train"
    clean: bool = False
    planned: float | None = None
    epochs: Series | None = None
    seconds: float | None = None
    decisions: tuple[Decision, ...] = field(default=())


def number(value: Any) -> float | None:
    """A cell as a number: also ``"0.5"``, ``"12 %"``, ``"NaN"``, ``"tensor(0.5)"``; ``None`` for an
    empty cell and for what is no number."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return _float(value)
    if not isinstance(value, str) or value.strip().lower() in NOTHING:
        return None
    text = value.strip()
    inner = TENSOR.match(text)
    if inner:
        text = inner[1]
    if text.endswith("%"):
        share = _float(text[:-1])
        return None if share is None else share / 100
    return _float(text)


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def from_rows(rows: Sequence[Mapping[str, Any]], source: str, what: str, **facts: Any) -> Log:
    """A log from its rows, oldest first; ``what`` names it in an error, ``facts`` are the other
    fields of ``Log``.

    Positions come from a step column, else an epoch column, else the row's number. Where positions
    go back, the run was resumed (or begun again): what was logged from there on is replaced. Of
    several values at one step the last counts; those inside one epoch are averaged.
    """
    axis, name = _axis(rows)
    columns: dict[str, dict[float, list[float]]] = {}
    rewritten = 0
    for place, row in enumerate(rows):
        at = float(place) if name is None else number(row.get(name))
        if at is None or not math.isfinite(at):
            continue
        for column, cell in row.items():
            value = number(cell)
            if value is None or column == name or not isinstance(column, str):
                continue
            points = columns.setdefault(column, {})
            rewritten += _go_back(points, at)
            points.setdefault(at, []).append(value)
    if not columns:
        raise not_a_log(what, "holds no number beside its positions")
    series = {c: _series(c, points, axis) for c, points in columns.items()}
    decisions = (*facts.pop("decisions", ()), *_resumed(rewritten))
    epochs = facts.pop("epochs", None) or _epochs(series, axis)
    return Log(source, axis, series, decisions=decisions, epochs=epochs, **facts)


def not_a_log(what: str, rule: str, value: object = None) -> DataError:
    """The refusal of something that is no log, which says what one looks like."""
    from holdfast.integrations.logs import all_log_readers

    known = "; ".join(dict.fromkeys(reader.looks for reader in all_log_readers().values()))
    return DataError(
        what, rule, value, f"A log holds a loss over steps or epochs, for example: {known}."
    )


def _axis(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """The kind of axis and its column: the first known name that most rows fill."""
    for axis, names in (("step", STEPS), ("epoch", EPOCHS)):
        for column in dict.fromkeys(c for row in rows for c in row if isinstance(c, str)):
            if column.strip().lower() not in names:
                continue
            filled = sum(number(row.get(column)) is not None for row in rows)
            if 2 * filled > len(rows):
                return axis, column
    return "row", None


def _go_back(points: dict[float, list[float]], at: float) -> int:
    """Forget what stands after ``at``; how many points that were."""
    later = [place for place in points if place > at]
    if later:
        later += [place for place in points if place == at]
    for place in later:
        del points[place]
    return len(later)


def _series(name: str, points: Mapping[float, list[float]], axis: str) -> Series:
    at = np.array(sorted(points), dtype=np.float64)
    pick = np.mean if axis == "epoch" else _last
    return Series(name, at, np.array([pick(points[place]) for place in at], dtype=np.float64))


def _last(values: Sequence[float]) -> float:
    return values[-1]


def _resumed(count: int) -> Iterable[Decision]:
    if count:
        yield Decision(
            "rows written twice", f"the later ones, {count} values replaced",
            "positions go back, so the run was resumed or begun again there",
        )  # fmt: skip


def _epochs(series: dict[str, Series], axis: str) -> Series | None:
    if axis == "epoch":
        return None
    named = [c for c in series if c.strip().lower() in EPOCHS]
    return series.pop(named[0]) if named else None
