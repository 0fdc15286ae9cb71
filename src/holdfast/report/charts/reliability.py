"""The reliability diagram: how often answers of a confidence were right, against the diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.charts.svg import SIZES, AxisScale, drawing, element
from holdfast.report.numbers import number, plural

MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Bin:
    """Test rows whose confidence lies in [low, high]: their number, mean confidence, accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(bins: Sequence[Bin]) -> Markup:
    """Both sizes of the diagram; a mark grows with its share of the rows. Empty without rows."""
    filled = [b for b in bins if b.n > 0]
    if not filled:
        return Markup("")
    return Markup("").join(_draw(size, filled) for size, _ in SIZES)


def _draw(size: str, bins: Sequence[Bin]) -> Markup:
    side = 400.0 if size == "wide" else 340.0
    x = AxisScale(0, 1, 52.0, side - 14)
    y = AxisScale(0, 1, side - 46, 12.0)
    rows = sum(b.n for b in bins)
    parts = [
        _grid(x, y),
        element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="diagonal"),
        *(_mark(b, x, y, rows) for b in bins),
    ]
    about = "; ".join(_words(b).replace("\n", ", ") for b in bins)
    return drawing("reliability", size, side, side, "Reliability diagram", about, *parts)


def _grid(x: AxisScale, y: AxisScale) -> Markup:
    parts = []
    for mark in MARKS:
        text = f"{100 * mark:.0f}\u00a0%"
        parts += [
            element("line", x1=x(mark), x2=x(mark), y1=y.start, y2=y.end, class_="grid"),
            element("line", x1=x.start, x2=x.end, y1=y(mark), y2=y(mark), class_="grid"),
            element(
                "text",
                text,
                x=x(mark),
                y=y.start + 17,
                class_="tick",
                text_anchor="end" if mark == 1 else "middle",
            ),
            element("text", text, x=x.start - 7, y=y(mark) + 4, class_="tick", text_anchor="end"),
        ]
    middle = (x.start + x.end) / 2
    parts.append(
        element(
            "text", "confidence → ", x=middle, y=y.start + 36, class_="tick", text_anchor="middle"
        )
    )
    parts.append(element("text", "↑ right", x=x.start + 6, y=y.end + 14, class_="tick"))
    return element("g", *parts, aria_hidden="true")


def _mark(b: Bin, x: AxisScale, y: AxisScale, rows: int) -> Markup:
    at, over = x(b.confidence), y(b.accuracy)
    # The eye compares areas, not radii.
    radius = 3 + 9 * (b.n / rows) ** 0.5
    words = _words(b)
    return element(
        "g",
        element("title", words),
        element("line", x1=at, x2=at, y1=y(b.confidence), y2=over, class_="miss"),
        element("circle", cx=at, cy=over, r=radius, class_="dot bubble"),
        class_="hit mark",
        role="img",
        tabindex="0",
        aria_label=words.replace("\n", ", "),
        data_x=at,
        data_y=over,
    )


def _words(b: Bin) -> str:
    return (
        f"Confidence {number(b.confidence, 'confidence')}\n"
        f"right {number(b.accuracy, 'accuracy')}\n{plural(b.n, 'row')}"
    )
