"""The dot-and-whisker chart: one number and its interval a line, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.charts.svg import NARROW, SIZES, WIDE, AxisScale, drawing, element, tick_labels
from holdfast.report.charts.svg import ticks as round_ticks
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


def dots(key: str, lines: Sequence[Dot], metric: str, title: str) -> Markup:
    """Both sizes of the chart of ``lines``, whose numbers are of the metric ``metric``.

    A line without a value says why in its place. Without any value there is no chart: empty.
    """
    if not any(line.estimate.value is not None for line in lines):
        return Markup("")
    about = "; ".join(f"{line.label}: {_words(line, metric)}" for line in lines)
    return Markup("").join(_draw(key, size, lines, metric, title, about) for size, _ in SIZES)


def _draw(key: str, size: str, lines: Sequence[Dot], metric: str, title: str, about: str) -> Markup:
    wide = size == "wide"
    width = WIDE if wide else NARROW
    # In the wide chart the texts stand beside the marks, so they must leave them room.
    words = max(LETTER * len(_value_words(line, metric)) for line in lines) + 22
    left, right = (190.0, width - max(words, 176.0)) if wide else (10.0, width - 10.0)
    letters = LABEL_LIMIT if wide else min(LABEL_LIMIT, int((width - words) / LETTER))
    height = (LINE if wide else 58.0) * len(lines)
    marks = _ticks(lines, metric, 6 if wide else 4)
    scale = AxisScale(marks[0], marks[-1], left, right)
    parts = [_grid(marks, scale, height, is_rate(metric))]
    for index, line in enumerate(lines):
        parts.append(_line(line, index, scale, metric, width, wide, max(letters, 8)))
    return drawing(key, size, width, height + AXIS, title, about, *parts)


def _ticks(lines: Sequence[Dot], metric: str, wanted: int) -> list[float]:
    found = [v for line in lines for v in _ends(line.estimate)]
    low, high = min(found), max(found)
    pad = 0.08 * (high - low) or 0.05 * (abs(high) or 1.0)
    low, high = low - pad, high + pad
    if is_rate(metric):
        # A rate ends at 100 %, unless a stranger's run says otherwise.
        low, high = max(0.0, low), max(min(1.0, high), *found)
    return round_ticks(low, high, wanted)


def _ends(value: Estimate) -> list[float]:
    return [v for v in (value.value, value.low, value.high) if v is not None]


def _grid(marks: Sequence[float], scale: AxisScale, height: float, percent: bool) -> Markup:
    parts = []
    for mark, label in zip(marks, tick_labels(marks, percent), strict=True):
        x = scale(mark)
        parts.append(element("line", x1=x, x2=x, y1=0.0, y2=height, class_="grid"))
        anchor = "start" if mark == marks[0] else "end" if mark == marks[-1] else "middle"
        parts.append(element("text", label, x=x, y=height + 17, class_="tick", text_anchor=anchor))
    return element("g", *parts, aria_hidden="true")


def _line(
    line: Dot, index: int, scale: AxisScale, metric: str, width: float, wide: bool, letters: int
) -> Markup:
    middle = LINE * index + LINE / 2 if wide else 58.0 * index + 42
    text_y = middle + 4.5 if wide else middle - 20
    cut = line.label if len(line.label) <= letters else line.label[: letters - 1] + "…"
    label = element("text", cut, x=0, y=text_y, class_=f"label {line.kind}")
    value = element(
        "text", _value_text(line, metric), x=width, y=text_y, text_anchor="end", class_="value"
    )
    return element("g", label, value, _mark(line, scale, middle, metric))


def _mark(line: Dot, scale: AxisScale, y: float, metric: str) -> Markup:
    if line.estimate.value is None:
        return Markup("")
    words = f"{line.label}\n{_words(line, metric)}"
    x = scale(line.estimate.value)
    parts = [element("title", words)]
    if line.estimate.low is not None and line.estimate.high is not None:
        low, high = scale(line.estimate.low), scale(line.estimate.high)
        parts.append(
            element("rect", x=low, y=y - 12, width=max(high - low, 1), height=24, class_="catch")
        )
        parts.append(element("line", x1=low, x2=high, y1=y, y2=y, class_="whisker"))
        parts += [
            element("line", x1=e, x2=e, y1=y - 5, y2=y + 5, class_="whisker") for e in (low, high)
        ]
    shape = {"main": _circle, "warn": _diamond}.get(line.kind, _square)
    parts.append(shape(x, y))
    return element(
        "g",
        *parts,
        class_=f"hit mark {line.kind}",
        role="img",
        tabindex="0",
        aria_label=words.replace("\n", ": "),
        data_x=x,
        data_y=y,
    )


def _circle(x: float, y: float) -> Markup:
    return element("circle", cx=x, cy=y, r=6.5, class_="dot")


def _square(x: float, y: float) -> Markup:
    return element("rect", x=x - 5, y=y - 5, width=10, height=10, class_="dot")


def _diamond(x: float, y: float) -> Markup:
    return element("path", d=f"M{x:.2f} {y - 7:.2f}l7 7l-7 7l-7-7z", class_="dot")


def _value_text(line: Dot, metric: str) -> Markup:
    if line.estimate.value is None:
        return element("tspan", "undefined", class_="muted")
    span = interval(line.estimate, metric)
    value = element("tspan", number(line.estimate.value, metric), class_="strong")
    return value + element("tspan", f"  {span}", class_="muted") if span else value


def _value_words(line: Dot, metric: str) -> str:
    """The text of ``_value_text`` without its marks."""
    if line.estimate.value is None:
        return "undefined"
    return f"{number(line.estimate.value, metric)}  {interval(line.estimate, metric)}".strip()


def _words(line: Dot, metric: str) -> str:
    if line.estimate.value is None:
        return f"undefined, {line.estimate.why}"
    span = interval(line.estimate, metric)
    inside = f" ({100 * line.estimate.level:.0f}\u00a0% interval {span})" if span else ""
    return number(line.estimate.value, metric) + inside
