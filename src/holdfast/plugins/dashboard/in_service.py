"""What befell a service, from its store alone: traffic, latency, drift, the live comparison, the
models that served, what re-testing found, what was deleted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.plugins.dashboard.drift_view import DriftView, drift_view
from holdfast.plugins.dashboard.pages import moment_of, plain
from holdfast.plugins.service.afterwards import SAID
from holdfast.report.charts.curves import ChartSeries, CurvesChart, curves
from holdfast.report.charts.svg import AxisScale, drawing, element, tick_labels, ticks
from holdfast.report.numbers import compact, count, interval, is_rate, number, points

if TYPE_CHECKING:
    from holdfast.plugins.store.records import Event
    from holdfast.plugins.store.store import Store


DAY_S = 86_400.0
# Spans that can be looked at, and how many columns each is drawn in.
SPANS: Mapping[str, tuple[str, float, int]] = {
    "hour": ("the last hour", 3_600.0, 30),
    "day": ("the last day", DAY_S, 48),
    "week": ("the last week", 7 * DAY_S, 56),
    "month": ("the last 30 days", 30 * DAY_S, 60),
}
MOST_CALLS = 200_000
MOST_EVENTS = 5_000
EVENTS_SHOWN, MOST_PAIRS, LONGEST = 60, 14, 240
# Under which names the live comparison and the watch for drift say where they stand.
COMPARISON, DRIFT = "comparison", "drift"
ALARMING = frozenset({"alarm", "drift", "harm", "promotion failed"})
VERDICTS: Mapping[str, str] = {"better": "good", "equivalent": "good", "worse": "bad"}
NEXT: Mapping[str, str] = {
    "promote": "Promote the challenger: `holdfast promote RUN --store URL`.",
    "keep": "Keep the model that serves.",
    "either": "Take whichever is cheaper.",
    "go on": "Go on: more rows will tell.",
    "stop": "Stop: the budget is spent.",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in equal parts: where each begins, how many requests and rows came in it,
    and how long half of them took, and nineteen of twenty [s] (NaN where none came)."""

    starts: tuple[float, ...]
    requests: tuple[int, ...]
    rows: tuple[int, ...]
    half: tuple[float, ...]
    most: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """A number with its name."""

    name: str
    figure: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that befell the service, in words: ``because`` where it says why, else ``pairs``
    of what it says."""

    at: float
    kind: str
    tone: str
    because: str
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LiveEvidence:
    """Where the live comparison stands."""

    verdict: str
    tone: str
    because: str
    next: str
    facts: tuple[tuple[str, str], ...]
    asked: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What another observer says now, under its own names."""

    name: str
    because: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ServiceView:
    """The page of a service."""

    span: str
    tiles: tuple[Tile, ...]
    traffic: Markup
    latency: Markup
    lines: tuple[tuple[str, str, str, str, str], ...]
    comparison: LiveEvidence | None
    drift: DriftView | None
    observed: tuple[Observed, ...]
    tests: tuple[tuple[str, str, str, str], ...]
    trend: Markup
    models: tuple[EventView, ...]
    deletions: tuple[EventView, ...]
    events: tuple[EventView, ...]
    cut: str = ""
    models_now: tuple[tuple[str, int], ...] = field(default=())


def service_view(store: Store, now: float, span: str = "day") -> ServiceView:
    """Everything that is shown of the service of ``store``. Raises ``StoreError``."""
    title, length, parts = SPANS.get(span, SPANS["day"])
    calls = store.calls(since=now - length, limit=MOST_CALLS)
    at = np.array([one[0] for one in calls])
    rows = np.array([one[1] for one in calls])
    seconds = np.array([one[2] for one in calls])
    found = in_parts(at, rows, seconds, now - length, length, parts)
    events = store.newest_events(MOST_EVENTS)
    said = store.states(SAID)
    compared = store.state(COMPARISON)
    by_model: dict[str, int] = {}
    for one in calls:
        by_model[one[3]] = by_model.get(one[3], 0) + 1
    tests = [one for one in events if one.kind == "retest"]
    return ServiceView(
        span=span if span in SPANS else "day",
        tiles=_tiles(found, seconds, title, store.count_feedback()),
        traffic=columns("traffic", f"Requests, {title}", found.starts, found.requests),
        latency=_latency(found, title),
        lines=_lines(found),
        comparison=None if compared is None else _evidence(compared),
        drift=drift_view(said.get(SAID + DRIFT), events),
        observed=tuple(
            _observed(name.removeprefix(SAID), body)
            for name, body in said.items()
            if name.removeprefix(SAID) not in (DRIFT, COMPARISON)
        ),
        tests=tuple(_test(one) for one in reversed(tests)),
        trend=_trend(tests),
        models=tuple(_told(x) for x in reversed(events) if x.kind in ("serving", "promotion")),
        deletions=tuple(_told(x) for x in reversed(events) if x.kind == "deletion"),
        events=tuple(_told(one) for one in reversed(events))[:EVENTS_SHOWN],
        cut=f"The newest {MOST_CALLS:,} requests of it alone." if len(calls) == MOST_CALLS else "",
        models_now=tuple(sorted(by_model.items(), key=lambda pair: -pair[1])),
    )


def in_parts(at: Any, rows: Any, seconds: Any, start: float, length: float, parts: int) -> Span:
    """Calls (their times, rows and how long each took) by equal parts of a stretch of time."""
    edges = start + length * np.arange(parts) / parts
    place = np.clip(((at - start) / length * parts).astype(int), 0, parts - 1)
    own = [seconds[place == one] for one in range(parts)]
    return Span(
        tuple(edges.tolist()),
        tuple(np.bincount(place, minlength=parts).tolist()) if len(at) else (0,) * parts,
        tuple(int(rows[place == one].sum()) for one in range(parts)),
        tuple(float(np.quantile(x, 0.5)) if len(x) else math.nan for x in own),
        tuple(float(np.quantile(x, 0.95)) if len(x) else math.nan for x in own),
    )


def columns(key: str, title: str, starts: Sequence[float], counts: Sequence[int]) -> Markup:
    """Counts over time as columns; empty where all are 0."""
    if not any(counts):
        return Markup("")
    return Markup("").join(
        _columns(key, title, starts, counts, size, width)
        for size, width in (("wide", 768.0), ("narrow", 340.0))
    )


def _columns(
    key: str, title: str, starts: Sequence[float], counts: Sequence[int], size: str, width: float
) -> Markup:
    height = 180.0
    x = AxisScale(0, len(counts), 50.0, width - 8.0)
    y = AxisScale(0, max(counts), height - 26.0, 12.0)
    marks = [one for one in ticks(0, max(counts), 3) if one <= max(counts) and one == int(one)]
    parts = []
    for mark, label in zip(marks, tick_labels(marks), strict=True):
        parts.append(element("line", x1=x.start, x2=x.end, y1=y(mark), y2=y(mark), class_="grid"))
        parts.append(
            element("text", label, x=x.start - 7, y=y(mark) + 4, class_="tick", text_anchor="end")
        )
    for place in range(0, len(counts), max(1, len(counts) // (4 if size == "wide" else 2))):
        text = moment_of(starts[place])[5:16]
        parts.append(element("text", text, x=x(place), y=height - 6, class_="tick"))
    axes = element("g", *parts, aria_hidden="true")
    gap = 0.15
    bars = [
        element(
            "rect",
            element("title", f"{moment_of(starts[place])}: {value:,}"),
            x=x(place + gap),
            y=y(value),
            width=x(1 - gap) - x(gap),
            height=y(0) - y(value),
            class_="column",
        )
        for place, value in enumerate(counts)
        if value
    ]
    about = f"At most {max(counts):,} in one part, {sum(counts):,} in all; the table has each."
    return drawing(key, size, width, height, title, about, axes, *bars)


def _latency(found: Span, title: str) -> Markup:
    known = [i for i, value in enumerate(found.half) if value == value]
    if len(known) < 2:
        return Markup("")
    chart = CurvesChart(
        "latency",
        f"Latency, {title}",
        "",
        tuple(i + 1 for i in known),
        (None,) * len(known),
        (
            ChartSeries("Half of the requests", "valid", tuple(1e3 * found.half[i] for i in known)),
            ChartSeries("95 of 100", "refined", tuple(1e3 * found.most[i] for i in known)),
        ),
        None,
        axis="part",
    )
    return curves(chart)


def _lines(found: Span) -> tuple[tuple[str, str, str, str, str], ...]:
    """The table behind both charts; parts in which nothing came are left out."""
    return tuple(
        (moment_of(start), count(asked), count(rows), _ms(half), _ms(most))
        for start, asked, rows, half, most in zip(
            found.starts, found.requests, found.rows, found.half, found.most, strict=True
        )
        if asked
    )


def _tiles(found: Span, seconds: Any, title: str, labels: int) -> tuple[Tile, ...]:
    half = float(np.quantile(seconds, 0.5)) if len(seconds) else math.nan
    most = float(np.quantile(seconds, 0.95)) if len(seconds) else math.nan
    return (
        Tile("requests", count(sum(found.requests)), title),
        Tile("rows", count(sum(found.rows)), title),
        Tile("half took at most", _ms(half), title),
        Tile("95 of 100 took at most", _ms(most), title),
        Tile("labels", count(labels), "in all"),
    )


def _ms(seconds: float) -> str:
    if seconds != seconds:
        return "–"
    digits = 2 if seconds < 0.01 else 1 if seconds < 0.1 else 0
    return f"{1e3 * seconds:,.{digits}f}\u00a0ms"


def _evidence(body: Mapping[str, Any]) -> LiveEvidence:
    verdict = str(body.get("verdict") or "undecided")
    found = body.get("difference")
    gap = found if isinstance(found, Mapping) else {}
    facts = [("Shown", body.get("shown")), ("Challenger", body.get("challenger"))]
    value, low, high = (gap.get(name) for name in ("value", "low", "high"))
    if value is not None:
        share = body.get("way") == "shadow"
        say, unit = (points, " points") if share else (compact, "")
        span = f" ({say(low)} to {say(high)})" if low is not None and high is not None else ""
        facts.append(("Challenger minus shown", f"{say(value)}{unit}{span}"))
    facts += [
        (name.replace("_", " ").capitalize(), _short(body[name]))
        for name in ("rows", "unlike", "labels", "users", "needed", "budget")
        if body.get(name) is not None
    ]
    return LiveEvidence(
        verdict=verdict,
        tone=VERDICTS.get(verdict, "unsure"),
        because=plain(body.get("because") or "", 600),
        next=NEXT.get(str(body.get("next")), ""),
        facts=tuple((name, plain(value)) for name, value in facts if value is not None),
        asked=float(body.get("at") or 0.0),
    )


def _observed(name: str, body: Mapping[str, Any]) -> Observed:
    return Observed(plain(name), _because(body), tuple(_pairs(body)))


def _test(event: Event) -> tuple[str, str, str, str]:
    """A re-test: when, its number, how many rows, what it says."""
    body = event.body
    name = str(body.get("metric") or "")
    found = Estimate(body.get("value"), body.get("low"), body.get("high"))
    told = f"{number(found.value, name)} {interval(found, name)}".strip()
    return moment_of(event.at), told, count(body.get("n")), _because(body)


def _trend(tests: Sequence[Event]) -> Markup:
    """The re-tests of one metric in their order, with what was promised."""
    names = [str(one.body.get("metric")) for one in tests]
    same = [one for one, name in zip(tests, names, strict=True) if name == names[-1]]
    values = [one.body.get("value") for one in same]
    if sum(isinstance(one, (int, float)) for one in values) < 2:
        return Markup("")
    lines = [
        ChartSeries(title, style, tuple(_finite(one.body.get(key)) for one in same))
        for title, style, key in (
            ("Right", "valid", "value"),
            ("At least", "train", "low"),
            ("Promised", "refined", "promised"),
        )
    ]
    steps = tuple(range(1, len(same) + 1))
    metric = "accuracy" if is_rate(names[-1]) else names[-1]
    shown = tuple(one for one in lines if any(x is not None for x in one.values))
    chart = CurvesChart(
        "trend", "Re-tests", metric, steps, (None,) * len(steps), shown, None, "test"
    )
    return curves(chart)


def _finite(value: Any) -> float | None:
    plain_ = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain_ and math.isfinite(value) else None


def _told(event: Event) -> EventView:
    alarm = event.kind in ALARMING or event.body.get("alarm") is True
    tone = "bad" if alarm else "info"
    return EventView(
        event.at, plain(event.kind), tone, _because(event.body), tuple(_pairs(event.body))
    )


def _because(body: Mapping[str, Any]) -> str:
    return plain(body.get("because") or "", 600)


def _pairs(body: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, str]]:
    """The values of a record under their names, the inner ones too, at most so many."""
    left = MOST_PAIRS
    stack: list[tuple[str, Any]] = [(key, body)]
    while stack and left:
        name, value = stack.pop(0)
        if isinstance(value, Mapping):
            inner = [(f"{name} {one}".strip(), item) for one, item in value.items()]
            stack = [*inner, *stack] if name.count(" ") < 4 else stack
        elif value not in (None, "", [], {}) and name != "because":
            left -= 1
            yield plain(name.replace("_", " "), 60), _short(value)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return compact(value) if math.isfinite(value) else "–"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, list):
        return plain(", ".join(_short(one) for one in value[:12]), LONGEST)
    if isinstance(value, Mapping):
        return plain(", ".join(f"{k} {_short(v)}" for k, v in list(value.items())[:6]), LONGEST)
    return plain(value, LONGEST)
