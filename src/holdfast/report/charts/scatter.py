"""The data map: one mark a row, how sure the model was against how much that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.charts.svg import (
    SIZES,
    AxisScale,
    drawing,
    element,
    line,
    mark,
    tick,
    tick_labels,
    ticks,
)

# Half the range of a probability: no standard deviation of one is larger.
MOST = 0.5


@dataclass(frozen=True, slots=True)
class PointMark:
    """A row at (variability, confidence); ``style`` gives its colour, ``words`` its tip."""

    variability: float
    confidence: float
    style: str
    words: str


def scatter(marks: Sequence[PointMark], about: str) -> Markup:
    """Both sizes of the map; empty without marks."""
    if not marks:
        return Markup("")
    return Markup("").join(_draw(size, width, marks, about) for size, width in SIZES)


def _draw(size: str, width: float, marks: Sequence[PointMark], about: str) -> Markup:
    height = 380.0 if size == "wide" else 320.0
    x = AxisScale(0.0, MOST, 56.0, width - 14.0)
    y = AxisScale(0.0, 1.0, height - 44.0, 34.0)
    parts = [_axes(x, y), *(_mark(point, x, y) for point in marks)]
    return drawing("data-map", size, width, height, "Data map", about, *parts)


def _axes(x: AxisScale, y: AxisScale) -> Markup:
    parts = []
    for at, label in zip(ticks(0, 1), tick_labels(ticks(0, 1), True), strict=True):
        parts += [
            line(x.start, x.end, y(at), y(at), "grid"),
            tick(label, x.start - 7, y(at) + 4, "end"),
        ]
    for at, label in zip(ticks(0, MOST), tick_labels(ticks(0, MOST)), strict=True):
        parts.append(tick(label, x(at), y.start + 18, "middle"))
    parts.append(tick("variability →", x.end, y.start + 38, "end"))
    parts.append(tick("↑ confidence", x.start, y.end - 16))
    return element("g", *parts, aria_hidden="true")


def _mark(point: PointMark, x: AxisScale, y: AxisScale) -> Markup:
    at, over = x(min(point.variability, MOST)), y(point.confidence)
    dot = element("circle", cx=at, cy=over, r=3.2, class_=f"dot map {point.style}")
    return mark(point.words, at, over, dot, tab=None)
