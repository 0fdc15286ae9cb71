"""Charts as plain text: the learning curves of a training, and the loss over the learning rates of
a range test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.curves import Curves, Series, logged_position
from holdfast.core.records import Floats

if TYPE_CHECKING:
    from holdfast.search.rate_range import RateRange

ROWS = 12
GUTTER = 9
LIGHT, FULL, BOTH = "░", "█", "▓"
TRAIN, VALID = LIGHT, FULL
# Above this ratio a linear scale would press all but the first points to the bottom.
LOG_FROM = 30
# The chart of a range test.
RATE_ROWS, RATE_GUTTER = 11, 8
COLOURS = {TRAIN: "\x1b[34m", VALID: "\x1b[33m", BOTH: "\x1b[32m"}


def curve_chart(curves: Curves, columns: int, colour: bool) -> str:
    """Training and validation curves in blocks over ``columns`` characters, with a scale, a legend
    and a mark below the best evaluation; empty where no value is finite.

    A column shows the median of its points, so a single spike is not visible. The scale is
    logarithmic where the largest value is more than 30 times the smallest; the legend says so.
    """
    series_drawn = [
        (mark, s.finite) for mark, s in ((TRAIN, curves.train), (VALID, curves.valid)) if s
    ]
    series_drawn = [(mark, series) for mark, series in series_drawn if len(series)]
    if not series_drawn:
        return ""
    width = columns - GUTTER - 2
    first, last = _ends([series for _, series in series_drawn])
    lines = [(mark, _columns(series, first, last, width)) for mark, series in series_drawn]
    known = np.concatenate([line[np.isfinite(line)] for _, line in lines])
    straight = known.min() <= 0 or known.max() < LOG_FROM * known.min()
    scale = (lambda v: v) if straight else np.log
    rows = _rows([(mark, scale(line)) for mark, line in lines], scale(known))
    low, high = float(known.min()), float(known.max())
    middle = (low + high) / 2 if straight else math.sqrt(low * high)
    shown = {0: high, ROWS // 2: middle, ROWS - 1: low}
    labels = [f"{shown[row]:.4g}" if row in shown else "" for row in range(ROWS)]
    body = [
        f"{label:>{GUTTER}} ┤{_colourize(row, colour)}"
        for label, row in zip(labels, rows, strict=True)
    ]
    return "\n".join(
        [*body, *_axis_lines(curves, first, last, width), _legend(series_drawn, straight, colour)]
    )


def _ends(series: Sequence[Series]) -> tuple[float, float]:
    return min(float(s.positions[0]) for s in series), max(float(s.positions[-1]) for s in series)


def _columns(series: Series, first: float, last: float, width: int) -> Floats:
    """One value per column: the median of its points, interpolated over columns without points."""
    span = last - first or 1.0
    places = np.minimum(((series.positions - first) / span * width).astype(int), width - 1)
    line = np.full(width, np.nan)
    for place in np.unique(places):
        line[place] = np.median(series.values[places == place])
    known = np.flatnonzero(np.isfinite(line))
    # Only between columns with points: nothing is drawn before the first and after the last.
    inside = np.arange(known[0], known[-1] + 1)
    line[inside] = np.interp(inside, known, line[known])
    return line


def _rows(lines: Sequence[tuple[str, Floats]], known: Floats) -> list[str]:
    low, high = float(known.min()), float(known.max())
    grid = np.full((ROWS, len(lines[0][1])), " ")
    for mark, line in lines:
        for column in np.flatnonzero(np.isfinite(line)):
            row = round((high - line[column]) / ((high - low) or 1.0) * (ROWS - 1))
            grid[row, column] = mark if grid[row, column] == " " else BOTH
    return ["".join(row).rstrip() for row in grid]


def _axis_lines(curves: Curves, first: float, last: float, width: int) -> list[str]:
    axis = [f"{'':{GUTTER}} └{'─' * width}"]
    left, right = f"{logged_position(first):g}", f"{curves.axis} {logged_position(last):g}"
    line = left + " " * max(1, width - len(left) - len(right)) + right
    if curves.best is not None:
        at = min(width - 1, int((curves.best - first) / ((last - first) or 1.0) * width))
        text = f"▲ best {logged_position(curves.best):g}"
        start = at if at + len(text) <= width else at - len(text) + 1
        mark = text if start == at else f"best {logged_position(curves.best):g} ▲"
        axis.append(f"{'':{GUTTER}}  {' ' * max(0, start)}{mark}")
    return [*axis, f"{'':{GUTTER}}  {line}"]


def _legend(drawn: Sequence[tuple[str, Series]], straight: bool, colour: bool) -> str:
    names = [f"{_colourize(mark, colour)} {series.name}" for mark, series in drawn]
    both = [f"{_colourize(BOTH, colour)} both"] if len(drawn) > 1 else []
    scale = [] if straight else ["(logarithmic scale)"]
    return f"{'':{GUTTER}}  " + "   ".join([*names, *both, *scale])


def _colourize(text: str, colour: bool) -> str:
    if not colour:
        return text
    return "".join(f"{COLOURS[c]}{c}\x1b[0m" if c in COLOURS else c for c in text)


def rate_chart(rate_range: RateRange, columns: int) -> str:
    """The chart, ``columns`` characters wide: the smoothed loss in full blocks, the loss of each
    update in light ones, learning rates on a logarithmic scale, the suggested rate marked below.
    Values more than twice the fall above the start are drawn at the top."""
    width = columns - RATE_GUTTER - 2
    rates = np.array([one.rate for one in rate_range.points])
    line = np.array([one.smoothed for one in rate_range.points])
    first, last = math.log10(rates[0]), math.log10(rates[-1])
    begin, low = float(line[0]), float(line.min())
    high = min(float(line.max()), begin + max(begin - low, 0.1 * abs(begin)))
    grid = np.full((RATE_ROWS, width), " ")
    places = ((np.log10(rates) - first) / ((last - first) or 1) * (width - 1)).round().astype(int)
    for mark, values in ((LIGHT, [one.loss for one in rate_range.points]), (FULL, line)):
        for place, value in zip(places, values, strict=True):
            if mark == FULL or low <= value <= high:
                share = (high - min(high, max(low, value))) / ((high - low) or 1)
                grid[round(share * (RATE_ROWS - 1)), place] = mark
    labels = {0: f"{high:.3g}", RATE_ROWS - 1: f"{low:.3g}"}
    body = [
        f"{labels.get(i, ''):>{RATE_GUTTER}}┤{''.join(row).rstrip()}" for i, row in enumerate(grid)
    ]
    return "\n".join([*body, *_rate_axis_lines(rate_range, first, last, width)])


def _rate_axis_lines(rate_range: RateRange, first: float, last: float, width: int) -> list[str]:
    def at(rate: float) -> int:
        return round((math.log10(rate) - first) / ((last - first) or 1) * (width - 1))

    axis, marks = ["─"] * width, [" "] * width
    for decade in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1):
        place = at(10.0**decade)
        axis[place] = "┴"
        text = f"1e{decade}"
        start = min(place, width - len(text))
        marks[start : start + len(text)] = text
    lines = [f"{'':{RATE_GUTTER}}└{''.join(axis)}", f"{'':{RATE_GUTTER}} {''.join(marks).rstrip()}"]
    if rate_range.suggested is not None:
        text = f"▲ {rate_range.suggested:.2g}"
        place = at(rate_range.suggested)
        if place + len(text) > width:
            text = f"{rate_range.suggested:.2g} ▲"
            place -= len(text) - 1
        lines.append(f"{'':{RATE_GUTTER}} {' ' * max(0, place)}{text}")
    return [
        *lines,
        f"{'':{RATE_GUTTER}} {FULL} smoothed loss   {LIGHT} each update   learning rate →",
    ]
