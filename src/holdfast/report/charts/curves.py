"""Line charts over steps: the lines, the best step, and the values of each evaluation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.charts.svg import (
    SIZES,
    WIDE,
    AxisScale,
    element,
    integer_ticks,
    line,
    mark,
    svg_drawing,
    tick,
    tick_labels,
    ticks,
)
from holdfast.report.numbers import count, number

TOP = 26.0
BOTTOM = 40.0
# Up to ``FEW_POINTS`` evaluations, each gets a mark. With more than ``MOST_BANDS``, only some get
# a tooltip: thousands would make the page slow, and nobody could point at one.
FEW_POINTS, MOST_BANDS = 8, 20


@dataclass(frozen=True, slots=True)
class ChartSeries:
    """One line; ``style`` (``train``, ``valid`` or ``refined``) gives colour, dash and mark.
    A value that is ``None`` or not finite leaves a gap."""

    name: str
    style: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class DiscardedCurve:
    """A part of a curve that a rollback discarded, drawn faint."""

    style: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class CurvesChart:
    """A chart. ``metric`` sets the format of its numbers; ``best`` is the step of the best
    checkpoint, which is labelled ``mark``; ``axis`` names the unit of the positions; ``left`` are
    the curves that a rollback discarded. The chart is drawn in each of ``sizes``; the page shows
    the one that fits. ``scripted`` says whether the page supports keys. ``bridged`` lines continue
    over positions without a value, since each line has its own positions."""

    key: str
    title: str
    metric: str
    steps: tuple[int, ...]
    epochs: tuple[float | None, ...]
    series: tuple[ChartSeries, ...]
    best: int | None
    axis: str = "step"
    mark: str = "best checkpoint"
    sizes: tuple[tuple[str, float], ...] = SIZES
    scripted: bool = True
    left: tuple[DiscardedCurve, ...] = ()
    bridged: bool = False

    @property
    def percent(self) -> bool:
        """Whether the numbers are shares, drawn from 0 to 100 %."""
        return self.metric == "accuracy"


def draw_curves(chart: CurvesChart) -> Markup:
    """The chart in its sizes; empty where no series has a finite value."""
    finite_values = [v for s in chart.series for v in s.values if _finite(v)]
    if not finite_values:
        return Markup("")
    return Markup("").join(_draw(chart, size, width) for size, width in chart.sizes)


def _draw(chart: CurvesChart, size: str, width: float) -> Markup:
    height = 300.0 if size == "wide" else 250.0
    low, high = _value_range(chart)
    steps = [*chart.steps, *(step for one in chart.left for step in one.steps)]
    x = AxisScale(min(steps), max(steps), 50.0, width - 14.0)
    y = AxisScale(low, high, height - BOTTOM, TOP)
    marks = [m for m in ticks(low, high, 5 if size == "wide" else 4) if low <= m <= high]
    parts = [
        _axes(chart, marks, x, y, width),
        _best(chart, x, y),
        *(_path(one.steps, one.values, f"{one.style} left", x, y) for one in chart.left),
        *(_path(chart.steps, one.values, one.style, x, y, chart.bridged) for one in chart.series),
        *_bands(chart, x, y),
    ]
    return svg_drawing(chart.key, size, width, height, chart.title, _description(chart), *parts)


def _value_range(chart: CurvesChart) -> tuple[float, float]:
    value_lists = [one.values for one in chart.series] + [one.values for one in chart.left]
    finite_values = [v for values in value_lists for v in values if v is not None and _finite(v)]
    low, high = min(finite_values), max(finite_values)
    # A flat curve has no height, so it gets one.
    pad = 0.05 * (high - low) or 0.1 * (abs(high) or 1.0)
    if chart.percent:
        return max(0.0, low - pad), min(1.0, high + pad)
    # From 0, unless that would press the curves into a strip at the top.
    return (low - pad if low > 0.5 * high else min(0.0, low)), high + pad


def _axes(
    chart: CurvesChart, marks: Sequence[float], x: AxisScale, y: AxisScale, width: float
) -> Markup:
    parts = []
    for at, label in zip(marks, tick_labels(marks, chart.percent), strict=True):
        parts.append(line(x.start, x.end, y(at), y(at), "grid"))
        parts.append(tick(label, x.start - 7, y(at) + 4, "end"))
    steps = integer_ticks(x.low, x.high, 6 if width == WIDE else 4)
    for at, label in zip(steps, tick_labels(steps), strict=True):
        parts.append(tick(label, x(at), y.start + 18, "middle"))
    end = tick(chart.axis, x.end, y.start + 35, "end")
    return element("g", *parts, end, aria_hidden="true")


def _best(chart: CurvesChart, x: AxisScale, y: AxisScale) -> Markup:
    if chart.best is None or not chart.steps[0] <= chart.best <= chart.steps[-1]:
        return Markup("")
    at = x(chart.best)
    late = at > (x.start + x.end) / 2
    text = element(
        "text",
        f"{chart.mark}: {chart.axis} {count(chart.best)}",
        x=at + (-6 if late else 6),
        y=y.end - 10,
        text_anchor="end" if late else "start",
        class_="best-text",
    )
    return element("g", line(at, at, y.end - 8, y.start, "best-line"), text, aria_hidden="true")


def _path(
    steps: Sequence[int],
    values: Sequence[float | None],
    style: str,
    x: AxisScale,
    y: AxisScale,
    bridged: bool = False,
) -> Markup:
    commands, pen_down = [], False
    for step, value in zip(steps, values, strict=True):
        if value is None or not _finite(value):
            pen_down = pen_down and bridged
            continue
        commands.append(f"{'L' if pen_down else 'M'}{x(step):.1f} {y(value):.1f}")
        pen_down = True
    return element("path", d="".join(commands), class_=f"curve {style}", aria_hidden="true")


def _bands(chart: CurvesChart, x: AxisScale, y: AxisScale) -> list[Markup]:
    best_step = chart.best if chart.best in chart.steps else chart.steps[-1]
    first, last = chart.steps.index(best_step), len(chart.steps) - 1
    places: Sequence[int] = range(last + 1)
    if last >= MOST_BANDS:
        even = (round(i * last / (MOST_BANDS - 1)) for i in range(MOST_BANDS))
        places = sorted({*even, first})
    centres = [x(chart.steps[index]) for index in places]
    between = [(a + b) / 2 for a, b in itertools.pairwise(centres)]
    edges = [x.start, *between, x.end]
    return [
        _band(chart, index, edges[place : place + 2], x(chart.steps[index]), y, index == first)
        for place, index in enumerate(places)
    ]


def _band(
    chart: CurvesChart, index: int, edges: Sequence[float], at: float, y: AxisScale, focusable: bool
) -> Markup:
    # Evaluations at the same step would have a band of width 0.
    width = max(edges[1] - edges[0], 1)
    catch = element(
        "rect", x=edges[0], y=y.end, width=width, height=y.start - y.end, class_="catch"
    )
    parts = [catch, line(at, at, y.end, y.start, "cross")]
    for series in chart.series:
        value = series.values[index]
        if value is not None and _finite(value):
            parts.append(_dot(series.style, at, y(value)))
    shown = " kept" if chart.steps[index] == chart.best else ""
    shown += " few" if len(chart.steps) <= FEW_POINTS else ""
    # The Tab key stops once a chart; the arrow keys move from there.
    tab = "0" if focusable else "-1"
    return mark(_band_text(chart, index), at, y.end, *parts, style=f"band{shown}", tab=tab)


def _dot(style: str, x: float, y: float) -> Markup:
    if style == "train":
        return element("circle", cx=x, cy=y, r=3.5, class_=f"dot {style}")
    if style == "valid":
        return element("rect", x=x - 3.2, y=y - 3.2, width=6.4, height=6.4, class_=f"dot {style}")
    return element(
        "path", d=f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5-4.5z", class_=f"dot {style}"
    )


def _band_text(chart: CurvesChart, index: int) -> str:
    epoch = chart.epochs[index]
    head = f"{chart.axis.capitalize()} {count(chart.steps[index])}" + (
        f", epoch {epoch:.2f}" if epoch else ""
    )
    best_note = [chart.mark] if chart.steps[index] == chart.best else []
    values = [
        f"{series.name}: {number(value if _finite(value) else None, chart.metric)}"
        for series in chart.series
        for value in (series.values[index],)
        if value is not None or not chart.bridged
    ]
    return "\n".join([head, *values, *best_note])


def _description(chart: CurvesChart) -> str:
    ends = []
    for series in chart.series:
        known = [v for v in series.values if v is not None and _finite(v)]
        if known:
            first, last = number(known[0], chart.metric), number(known[-1], chart.metric)
            ends.append(f"{series.name} goes from {first} to {last}")
    best_sentence = f" {chart.mark.capitalize()}: {chart.axis} {count(chart.best)}."
    best = "" if chart.best is None else best_sentence
    range_sentence = (
        f"{len(chart.steps)} evaluations, {chart.axis}s {chart.steps[0]} to {chart.steps[-1]}. "
    )
    keys = " Arrow keys move between the evaluations." if chart.scripted else ""
    return range_sentence + "; ".join(ends) + "." + best + keys


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
