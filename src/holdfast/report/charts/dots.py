"""The dot-and-whisker chart: one value with its interval on each line, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.core.printable import shorten
from holdfast.core.records import Estimate
from holdfast.report.charts.svg import (
    NARROW,
    SIZES,
    WIDE,
    AxisScale,
    element,
    line,
    mark,
    svg_drawing,
    tick,
    tick_labels,
    ticks,
)
from holdfast.report.numbers import interval, is_rate, number

LINE = 40.0
AXIS = 26.0
# A little more than the mean width of a character of 13 pixels in a wide system font.
LETTER = 7.7
LABEL_LIMIT = 26


@dataclass(frozen=True, slots=True)
class Dot:
    """One line: ``kind`` is the style of its mark (``main``, ``other`` or ``warn``)."""

    label: str
    estimate: Estimate
    kind: str = "other"


def draw_dots(key: str, lines: Sequence[Dot], metric: str, title: str) -> Markup:
    """The chart of ``lines`` in both sizes, with values of the metric ``metric``.

    A line without a value says why. Empty where no line has a value.
    """
    if all(one.estimate.value is None for one in lines):
        return Markup("")
    about = "; ".join(f"{one.label}: {_dot_text(one, metric)}" for one in lines)
    return Markup("").join(_draw(key, size, lines, metric, title, about) for size, _ in SIZES)


def _draw(key: str, size: str, lines: Sequence[Dot], metric: str, title: str, about: str) -> Markup:
    wide = size == "wide"
    width = WIDE if wide else NARROW
    # The wide chart has its texts next to the marks, so the marks get the remaining width.
    texts = ("  ".join(filter(None, _value(one, metric))) for one in lines)
    words = max(LETTER * len(text) for text in texts) + 22
    left, right = (190.0, width - max(words, 176.0)) if wide else (10.0, width - 10.0)
    letters = LABEL_LIMIT if wide else min(LABEL_LIMIT, int((width - words) / LETTER))
    height = (LINE if wide else 58.0) * len(lines)
    estimates = [one.estimate for one in lines]
    ends = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    low, high = min(ends), max(ends)
    pad = 0.08 * (high - low) or 0.05 * (abs(high) or 1.0)
    low, high = low - pad, high + pad
    if is_rate(metric):
        # A rate ends at 100 %, unless a run of another tool has a larger value.
        low, high = max(0.0, low), max(min(1.0, high), *ends)
    marks = ticks(low, high, 6 if wide else 4)
    scale = AxisScale(marks[0], marks[-1], left, right)
    parts = [_grid(marks, scale, height, is_rate(metric))]
    for index, one in enumerate(lines):
        parts.append(_line(one, index, scale, metric, width, wide, max(letters, 8)))
    return svg_drawing(key, size, width, height + AXIS, title, about, *parts)


def _grid(marks: Sequence[float], scale: AxisScale, height: float, percent: bool) -> Markup:
    parts = []
    for at, label in zip(marks, tick_labels(marks, percent), strict=True):
        x = scale(at)
        parts.append(line(x, x, 0.0, height, "grid"))
        anchor = "start" if at == marks[0] else "end" if at == marks[-1] else "middle"
        parts.append(tick(label, x, height + 17, anchor))
    return element("g", *parts, aria_hidden="true")


def _line(
    dot: Dot, index: int, scale: AxisScale, metric: str, width: float, wide: bool, letters: int
) -> Markup:
    middle = LINE * index + LINE / 2 if wide else 58.0 * index + 42
    text_y = middle + 4.5 if wide else middle - 20
    cut = shorten(dot.label, letters)
    label = element("text", cut, x=0, y=text_y, class_=f"label {dot.kind}")
    value_text, span = _value(dot, metric)
    shown = [
        element("tspan", value_text, class_="muted" if dot.estimate.value is None else "strong"),
        *([element("tspan", f"  {span}", class_="muted")] if span else []),
    ]
    value = element("text", *shown, x=width, y=text_y, text_anchor="end", class_="value")
    return element("g", label, value, _mark(dot, scale, middle, metric))


def _mark(dot: Dot, scale: AxisScale, y: float, metric: str) -> Markup:
    estimate = dot.estimate
    if estimate.value is None:
        return Markup("")
    x, parts = scale(estimate.value), []
    if estimate.low is not None and estimate.high is not None:
        low, high = scale(estimate.low), scale(estimate.high)
        parts = [
            element("rect", x=low, y=y - 12, width=max(high - low, 1), height=24, class_="catch"),
            line(low, high, y, y, "whisker"),
            *(line(end, end, y - 5, y + 5, "whisker") for end in (low, high)),
        ]
    if dot.kind == "main":
        shape = element("circle", cx=x, cy=y, r=6.5, class_="dot")
    elif dot.kind == "warn":
        shape = element("path", d=f"M{x:.2f} {y - 7:.2f}l7 7l-7 7l-7-7z", class_="dot")
    else:
        shape = element("rect", x=x - 5, y=y - 5, width=10, height=10, class_="dot")
    words, style = _dot_text(dot, metric), f"mark {dot.kind}"
    return mark(f"{dot.label}\n{words}", x, y, *parts, shape, style=style, between=": ")


def _value(dot: Dot, metric: str) -> tuple[str, str]:
    """The value and its interval; the interval is empty where there is none."""
    if dot.estimate.value is None:
        return "undefined", ""
    return number(dot.estimate.value, metric), interval(dot.estimate, metric)


def _dot_text(dot: Dot, metric: str) -> str:
    if dot.estimate.value is None:
        return f"undefined, {dot.estimate.why}"
    value, span = _value(dot, metric)
    inside = f" ({100 * dot.estimate.level:.0f}\u00a0% CI {span})" if span else ""
    return value + inside
