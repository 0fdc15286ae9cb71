"""The curve of a range test as plain text: the smoothed loss over rates, a decade a mark."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from holdfast.search.rate_range import RateRange

ROWS, GUTTER = 11, 8
MARK, PLAIN = "█", "░"


def rate_chart(found: RateRange, columns: int) -> str:
    """The picture, ``columns`` characters wide: the smoothed loss in full blocks, the loss of each
    update in light ones, rates on a logarithmic scale, the suggested rate marked below. What lies
    more than twice the fall above the start is drawn at the top."""
    width = columns - GUTTER - 2
    rates = np.array([one.rate for one in found.points])
    line = np.array([one.smoothed for one in found.points])
    first, last = math.log10(rates[0]), math.log10(rates[-1])
    begin, low = float(line[0]), float(line.min())
    high = min(float(line.max()), begin + max(begin - low, 0.1 * abs(begin)))
    grid = np.full((ROWS, width), " ")
    places = ((np.log10(rates) - first) / ((last - first) or 1) * (width - 1)).round().astype(int)
    for mark, values in ((PLAIN, [one.loss for one in found.points]), (MARK, line)):
        for place, value in zip(places, values, strict=True):
            if mark == MARK or low <= value <= high:
                share = (high - min(high, max(low, value))) / ((high - low) or 1)
                grid[round(share * (ROWS - 1)), place] = mark
    labels = {0: f"{high:.3g}", ROWS - 1: f"{low:.3g}"}
    body = [f"{labels.get(i, ''):>{GUTTER}}┤{''.join(row).rstrip()}" for i, row in enumerate(grid)]
    return "\n".join([*body, *_below(found, first, last, width)])


def _below(found: RateRange, first: float, last: float, width: int) -> list[str]:
    def at(rate: float) -> int:
        return round((math.log10(rate) - first) / ((last - first) or 1) * (width - 1))

    axis, marks = ["─"] * width, [" "] * width
    for decade in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1):
        place = at(10.0**decade)
        axis[place] = "┴"
        text = f"1e{decade}"
        start = min(place, width - len(text))
        marks[start : start + len(text)] = text
    lines = [f"{'':{GUTTER}}└{''.join(axis)}", f"{'':{GUTTER}} {''.join(marks).rstrip()}"]
    if found.suggested is not None:
        text = f"▲ {found.suggested:.2g}"
        place = at(found.suggested)
        if place + len(text) > width:
            text = f"{found.suggested:.2g} ▲"
            place -= len(text) - 1
        lines.append(f"{'':{GUTTER}} {' ' * max(0, place)}{text}")
    return [*lines, f"{'':{GUTTER}} {MARK} smoothed loss   {PLAIN} each update   rate →"]
