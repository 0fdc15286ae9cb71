"""The data map: one mark a row, how sure the model was against how much that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.charts.svg import SIZES, AxisScale, drawing, element, tick_labels, ticks

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
    parts = [_axes(x, y), *(_mark(mark, x, y) for mark in marks)]
    return drawing("data-map", size, width, height, "Data map", about, *parts)


def _axes(x: AxisScale, y: AxisScale) -> Markup:
    parts = []
    for mark, label in zip(ticks(0, 1), tick_labels(ticks(0, 1), True), strict=True):
        parts += [
            element("line", x1=x.start, x2=x.end, y1=y(mark), y2=y(mark), class_="grid"),
            element("text", label, x=x.start - 7, y=y(mark) + 4, class_="tick", text_anchor="end"),
        ]
    for mark, label in zip(ticks(0, MOST), tick_labels(ticks(0, MOST)), strict=True):
        parts.append(
            element("text", label, x=x(mark), y=y.start + 18, class_="tick", text_anchor="middle")
        )
    parts.append(
        element("text", "variability →", x=x.end, y=y.start + 38, class_="tick", text_anchor="end")
    )
    parts.append(element("text", "↑ confidence", x=x.start, y=y.end - 16, class_="tick"))
    return element("g", *parts, aria_hidden="true")


def _mark(mark: PointMark, x: AxisScale, y: AxisScale) -> Markup:
    at, over = x(min(mark.variability, MOST)), y(mark.confidence)
    return element(
        "g",
        element("title", mark.words),
        element("circle", cx=at, cy=over, r=3.2, class_=f"dot map {mark.style}"),
        class_="hit mark",
        role="img",
        aria_label=mark.words.replace("\n", ", "),
        data_x=at,
        data_y=over,
    )
