"""What befell a service, from its store alone: traffic, latency, drift, the live comparison, the
models that served, what re-testing found, what was deleted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from holdfast.core.records import Estimate, Floats, finite
from holdfast.plugins.dashboard.pages import moment_of, plain
from holdfast.plugins.service.afterwards import SAID
from holdfast.report.charts.curves import ChartSeries, CurvesChart, draw_curves
from holdfast.report.charts.svg import AxisScale, element, svg_drawing, tick_labels, ticks
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


def service_view(store: Store, now: float, span: str = "day") -> Mapping[str, Any]:
    """Everything that is shown of the service of ``store``, by its name in the template. Raises
    ``StoreError``."""
    span = span if span in SPANS else "day"
    title, length, parts = SPANS[span]
    calls = store.calls(since=now - length, limit=MOST_CALLS)
    at, rows, seconds = (np.array([one[place] for one in calls]) for place in range(3))
    found = in_parts(at, rows, seconds, now - length, length, parts)
    events = store.newest_events(MOST_EVENTS)
    said = store.states(SAID)
    compared = store.state(COMPARISON)
    tests = [one for one in events if one.kind == "retest"]
    told = [(one.kind, _told(one)) for one in reversed(events)]
    return {
        "span": span,
        "tiles": (
            (count(sum(found.requests)), f"requests, {title}"),
            (count(sum(found.rows)), f"rows, {title}"),
            (_ms(_quantile(seconds, 0.5)), f"half took at most, {title}"),
            (_ms(_quantile(seconds, 0.95)), f"95 of 100 took at most, {title}"),
            (count(store.count_feedback()), "labels, in all"),
        ),
        "traffic": columns("traffic", f"Requests, {title}", found.starts, found.requests),
        "latency": _latency(found, title),
        "lines": _lines(found),
        "comparison": None if compared is None else _evidence(compared),
        "drift": drift_view(said.get(SAID + DRIFT), events),
        # What other observers say now, under their own names.
        "observed": [
            (plain(name), _because(body), tuple(_pairs(body)))
            for name, body in ((key.removeprefix(SAID), body) for key, body in said.items())
            if name not in (DRIFT, COMPARISON)
        ],
        "tests": [_test(one) for one in reversed(tests)],
        "trend": _trend(tests),
        "models": [view for kind, view in told if kind in ("serving", "promotion")],
        "deletions": [view for kind, view in told if kind == "deletion"],
        "events": [view for _, view in told[:EVENTS_SHOWN]],
        "cut": f"The newest {MOST_CALLS:,} requests of it alone." * (len(calls) == MOST_CALLS),
        "models_now": Counter(one[3] for one in calls).most_common(),
    }


def in_parts(
    at: Floats, rows: Floats, seconds: Floats, start: float, length: float, parts: int
) -> Span:
    """Calls (their times, rows and how long each took) by equal parts of a stretch of time."""
    edges = start + length * np.arange(parts) / parts
    place = np.clip(((at - start) / length * parts).astype(int), 0, parts - 1)
    own = [seconds[place == one] for one in range(parts)]
    return Span(
        tuple(edges.tolist()),
        tuple(np.bincount(place, minlength=parts).tolist()) if len(at) else (0,) * parts,
        tuple(int(rows[place == one].sum()) for one in range(parts)),
        tuple(_quantile(one, 0.5) for one in own),
        tuple(_quantile(one, 0.95) for one in own),
    )


def _quantile(values: Floats, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else math.nan


def columns(key: str, title: str, starts: Sequence[float], counts: Sequence[int]) -> Markup:
    """Counts over time as columns, in both sizes of a page; empty where all are 0."""
    if not any(counts):
        return Markup("")
    height, gap, most = 180.0, 0.15, max(counts)
    about = f"At most {most:,} in one part, {sum(counts):,} in all; the table has each."
    drawn = []
    for size, width, labels in (("wide", 768.0, 4), ("narrow", 340.0, 2)):
        x = AxisScale(0, len(counts), 50.0, width - 8.0)
        y = AxisScale(0, most, height - 26.0, 12.0)
        marks = [one for one in ticks(0, most, 3) if one <= most and one == int(one)]
        parts = []
        for mark, label in zip(marks, tick_labels(marks), strict=True):
            at = {"x": x.start - 7, "y": y(mark) + 4}
            parts += [
                element("line", x1=x.start, x2=x.end, y1=y(mark), y2=y(mark), class_="grid"),
                element("text", label, **at, class_="tick", text_anchor="end"),
            ]
        for place in range(0, len(counts), max(1, len(counts) // labels)):
            text = moment_of(starts[place])[5:16]
            parts.append(element("text", text, x=x(place), y=height - 6, class_="tick"))
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
        axes = element("g", *parts, aria_hidden="true")
        drawn.append(svg_drawing(key, size, width, height, title, about, axes, *bars))
    return Markup("").join(drawn)


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
    return draw_curves(chart)


def _lines(found: Span) -> tuple[tuple[str, str, str, str, str], ...]:
    """The table behind both charts; parts in which nothing came are left out."""
    return tuple(
        (moment_of(start), count(asked), count(rows), _ms(half), _ms(most))
        for start, asked, rows, half, most in zip(
            found.starts, found.requests, found.rows, found.half, found.most, strict=True
        )
        if asked
    )


def _ms(seconds: float) -> str:
    if seconds != seconds:
        return "–"
    digits = 2 if seconds < 0.01 else 1 if seconds < 0.1 else 0
    return f"{1e3 * seconds:,.{digits}f}\u00a0ms"


def _evidence(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the live comparison stands."""
    verdict = str(body.get("verdict") or "undecided")
    found = body.get("difference")
    gap = found if isinstance(found, Mapping) else {}
    value, low, high = (gap.get(name) for name in ("value", "low", "high"))
    facts = [("Shown", body.get("shown")), ("Challenger", body.get("challenger"))]
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
    return {
        "verdict": verdict,
        "tone": VERDICTS.get(verdict, "unsure"),
        "because": _because(body),
        "next": NEXT.get(str(body.get("next")), ""),
        "facts": [(name, plain(value)) for name, value in facts if value is not None],
    }


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
        ChartSeries(title, style, tuple(finite(one.body.get(key)) for one in same))
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
    return draw_curves(chart)


def _told(event: Event) -> Mapping[str, Any]:
    """Something that befell the service, in words: ``because`` where it says why, else ``pairs`` of
    what it says."""
    body = event.body
    return {
        "at": event.at,
        "kind": plain(event.kind),
        "tone": "bad" if event.kind in ALARMING or body.get("alarm") is True else "info",
        "because": _because(body),
        "pairs": tuple(_pairs(body)),
    }


def _because(body: Mapping[str, Any]) -> str:
    return plain(body.get("because") or "", 600)


def _pairs(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The values of a record under their names, the inner ones too, at most so many."""
    left = MOST_PAIRS
    stack: list[tuple[str, Any]] = [("", body)]
    while stack and left:
        name, value = stack.pop(0)
        if isinstance(value, Mapping):
            inner = [(f"{name} {one}".strip(), item) for one, item in value.items()]
            stack = [*inner, *stack] if name.count(" ") < 4 else stack
        elif value not in (None, "", [], {}) and name != "because":
            left -= 1
            yield plain(name.replace("_", " "), 60), _short(value)


def _short(value: object) -> str:
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


# Kinds of events: rows that are not like the old ones, what the new ones are like, answers that are
# worse than was promised.
ALARM, REGIME, HARM = "drift", "drift regime", "harm"
UNKNOWN = number(None, "error")
MOST_ALARMS, MOST_TERMS, MOST_EXAMPLES = 10, 16, 5


def drift_view(said: Mapping[str, Any] | None, events: Sequence[Event]) -> Mapping[str, Any] | None:
    """The drift of a service by what the watch ``said`` last and the events so far, by its name in
    the template; ``None`` where nothing was ever watched. ``terms`` tell the newest new rows from
    the old, ``examples`` are some of them, where the service may keep texts."""
    alarms = [one for one in events if one.kind in (ALARM, HARM)]
    if said is None and not alarms:
        return None
    said = said or {}
    regimes = [one for one in events if one.kind == REGIME]
    new = regimes[-1].body if regimes else {}
    rows = said.get("rows")
    if alarms:
        because = _alarm_words(alarms[-1])
    elif said.get("why"):
        because = plain(said["why"], 300)
    else:
        because = f"{count(rows)} rows are like those that the model was judged by"
    terms = [
        (plain(one.get("word"), 60), *(_rate(one.get(key), "accuracy") for key in ("now", "then")))
        for one in _objects(new.get("terms"))
    ]
    texts = [one["text"] for one in _objects(new.get("examples")) if one.get("text")]
    return {
        "tone": "bad" if alarms else "good" if rows else "unsure",
        "verdict": f"{len(alarms)} alarm{'s' * (len(alarms) != 1)}" if alarms else "no alarm",
        "because": because,
        "facts": tuple(_facts(said)),
        "alarms": [(one.at, _alarm_words(one)) for one in reversed(alarms)][:MOST_ALARMS],
        "terms": terms[:MOST_TERMS],
        "examples": [plain(text, 300) for text in texts[:MOST_EXAMPLES]],
    }


def _alarm_words(event: Event) -> str:
    body = event.body
    if body.get("because"):
        return plain(body["because"], 600)
    if event.kind != HARM:
        return plain(event.kind)
    worse, wrong = "its answers are worse than was promised", _rate(body.get("wrong"), "error")
    if wrong == UNKNOWN:
        return worse
    return (
        f"{worse}: {count(body.get('labels'))} labels of rows drawn evenly, of which {wrong} wrong"
    )


def _facts(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if said.get("rows") is not None:
        yield "Rows watched", count(said["rows"])
    if said.get("between_alarms") is not None:
        between = count(said["between_alarms"])
        yield "Clean rows between false alarms, at least on average", between
    if "accuracy_estimated" in said:
        why = f"cannot be said: {plain(said.get('accuracy_why') or 'not known', 200)}"
        known = said["accuracy_estimated"] is not None
        told = _estimate(said, "accuracy_estimated", "accuracy") if known else why
        yield "Right, by estimate without labels", told
    if said.get("accuracy_labelled") is not None:
        yield "Right, by labels", _estimate(said, "accuracy_labelled", "accuracy_labelled")
    if said.get("labels") is not None:
        yield "Labels of rows drawn evenly", count(said["labels"])


def _estimate(said: Mapping[str, Any], name: str, ends: str) -> str:
    found = Estimate(said[name], said.get(f"{ends}_low"), said.get(f"{ends}_high"))
    span = interval(found, "accuracy")
    return number(found.value, "accuracy") + (f" ({span})" if span else "")


def _objects(found: object) -> Iterator[Mapping[str, Any]]:
    """The objects of a list that anybody may have written."""
    for one in found if isinstance(found, list) else ():
        if isinstance(one, Mapping):
            yield one


def _rate(value: Any, metric: str) -> str:
    """A share as text; ``UNKNOWN`` for what is none."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number(float(value) if known and 0 <= value <= 1 else None, metric)
