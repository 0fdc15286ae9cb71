"""The state of a service, computed only from its store: traffic, latency, drift, the live
comparison, the models that served, re-tests, deletions."""

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
from holdfast.plugins.service.observers import SUMMARY
from holdfast.report.charts.curves import ChartSeries, CurvesChart, draw_curves
from holdfast.report.charts.svg import AxisScale, element, svg_drawing, tick_labels, ticks
from holdfast.report.numbers import compact, count, interval, is_rate, number, points

if TYPE_CHECKING:
    from holdfast.plugins.store.records import Event
    from holdfast.plugins.store.store import Store


DAY_S = 86_400.0
# Selectable time spans, and the number of columns of each.
SPANS: Mapping[str, tuple[str, float, int]] = {
    "hour": ("the last hour", 3_600.0, 30),
    "day": ("the last day", DAY_S, 48),
    "week": ("the last week", 7 * DAY_S, 56),
    "month": ("the last 30 days", 30 * DAY_S, 60),
}
MAX_CALLS = 200_000
MAX_EVENTS = 5_000
EVENTS_SHOWN, MAX_PAIRS, MAX_LENGTH = 60, 14, 240
# The names of the live comparison's and the drift observer's states.
COMPARISON, DRIFT = "comparison", "drift"
ALARMING = frozenset({"alarm", "drift", "harm", "promotion failed"})
VERDICTS: Mapping[str, str] = {"better": "good", "equivalent": "good", "worse": "bad"}
NEXT: Mapping[str, str] = {
    "promote": "Promote the challenger: `holdfast promote RUN --store URL`.",
    "keep": "Keep the served model.",
    "either": "The models are equivalent: choose the cheaper one.",
    "go on": "Continue: more rows are needed.",
    "stop": "Stop: the budget is used up.",
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """A time span in equal parts: the start of each, its requests and rows, and the median and 95th
    percentile of their latency [s] (NaN without requests)."""

    starts: tuple[float, ...]
    requests: tuple[int, ...]
    rows: tuple[int, ...]
    median_s: tuple[float, ...]
    p95_s: tuple[float, ...]


def service_view(store: Store, now: float, span: str = "day") -> Mapping[str, Any]:
    """The values of the service page by their names in the template. Raises ``StoreError``."""
    span = span if span in SPANS else "day"
    title, length, parts = SPANS[span]
    calls = store.calls(since=now - length, limit=MAX_CALLS)
    at, rows, seconds = (np.array([one[place] for one in calls]) for place in range(3))
    traffic = traffic_by_part(at, rows, seconds, now - length, length, parts)
    events = store.newest_events(MAX_EVENTS)
    summaries = store.states(SUMMARY)
    comparison = store.state(COMPARISON)
    retests = [one for one in events if one.kind == "retest"]
    event_views = [(one.kind, _event_view(one)) for one in reversed(events)]
    return {
        "span": span,
        "tiles": (
            (count(sum(traffic.requests)), f"requests, {title}"),
            (count(sum(traffic.rows)), f"rows, {title}"),
            (_ms(_quantile(seconds, 0.5)), f"median latency, {title}"),
            (_ms(_quantile(seconds, 0.95)), f"95th percentile of latency, {title}"),
            (count(store.count_feedback()), "labels in total"),
        ),
        "traffic": columns("traffic", f"Requests, {title}", traffic.starts, traffic.requests),
        "latency": _latency_chart(traffic, title),
        "lines": _traffic_table(traffic),
        "comparison": None if comparison is None else _comparison_view(comparison),
        "drift": drift_view(summaries.get(SUMMARY + DRIFT), events),
        # The other observers' summaries, under their own names.
        "observed": [
            (plain(name), _reason(body), tuple(_pairs(body)))
            for name, body in ((key.removeprefix(SUMMARY), body) for key, body in summaries.items())
            if name not in (DRIFT, COMPARISON)
        ],
        "tests": [_retest_row(one) for one in reversed(retests)],
        "trend": _retest_chart(retests),
        "models": [
            view for event_type, view in event_views if event_type in ("serving", "promotion")
        ],
        "deletions": [view for event_type, view in event_views if event_type == "deletion"],
        "events": [view for _, view in event_views[:EVENTS_SHOWN]],
        "cut": f"Only the newest {MAX_CALLS:,} requests are shown." * (len(calls) == MAX_CALLS),
        "models_now": Counter(one[3] for one in calls).most_common(),
    }


def traffic_by_part(
    at: Floats, rows: Floats, seconds: Floats, start: float, length: float, parts: int
) -> Traffic:
    """Requests (times, rows and seconds) grouped into equal parts of a time span."""
    edges = start + length * np.arange(parts) / parts
    part_index = np.clip(((at - start) / length * parts).astype(int), 0, parts - 1)
    seconds_by_part = [seconds[part_index == one] for one in range(parts)]
    return Traffic(
        tuple(edges.tolist()),
        tuple(np.bincount(part_index, minlength=parts).tolist()) if len(at) else (0,) * parts,
        tuple(int(rows[part_index == one].sum()) for one in range(parts)),
        tuple(_quantile(one, 0.5) for one in seconds_by_part),
        tuple(_quantile(one, 0.95) for one in seconds_by_part),
    )


def _quantile(values: Floats, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else math.nan


def columns(key: str, title: str, starts: Sequence[float], counts: Sequence[int]) -> Markup:
    """Counts over time as a column chart, in both sizes of a page; empty where all are 0."""
    if not any(counts):
        return Markup("")
    height, gap, most = 180.0, 0.15, max(counts)
    description = f"At most {most:,} in one interval, {sum(counts):,} in total; see the table."
    drawings = []
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
        drawings.append(svg_drawing(key, size, width, height, title, description, axes, *bars))
    return Markup("").join(drawings)


def _latency_chart(traffic: Traffic, title: str) -> Markup:
    with_calls = [i for i, value in enumerate(traffic.median_s) if value == value]
    if len(with_calls) < 2:
        return Markup("")
    chart = CurvesChart(
        "latency",
        f"Latency, {title}",
        "",
        tuple(i + 1 for i in with_calls),
        (None,) * len(with_calls),
        (
            ChartSeries("Median", "valid", tuple(1e3 * traffic.median_s[i] for i in with_calls)),
            ChartSeries(
                "95th percentile", "refined", tuple(1e3 * traffic.p95_s[i] for i in with_calls)
            ),
        ),
        None,
        axis="part",
    )
    return draw_curves(chart)


def _traffic_table(traffic: Traffic) -> tuple[tuple[str, str, str, str, str], ...]:
    """The table behind both charts; parts without requests are left out."""
    return tuple(
        (moment_of(start), count(requests), count(rows), _ms(half), _ms(most))
        for start, requests, rows, half, most in zip(
            traffic.starts,
            traffic.requests,
            traffic.rows,
            traffic.median_s,
            traffic.p95_s,
            strict=True,
        )
        if requests
    )


def _ms(seconds: float) -> str:
    if seconds != seconds:
        return "–"
    digits = 2 if seconds < 0.01 else 1 if seconds < 0.1 else 0
    return f"{1e3 * seconds:,.{digits}f}\u00a0ms"


def _comparison_view(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of the live comparison."""
    verdict = str(body.get("verdict") or "undecided")
    difference = body.get("difference")
    gap = difference if isinstance(difference, Mapping) else {}
    value, low, high = (gap.get(name) for name in ("value", "low", "high"))
    facts = [("Shown", body.get("shown")), ("Challenger", body.get("challenger"))]
    if value is not None:
        share = body.get("way") == "shadow"
        format_value, unit = (points, " points") if share else (compact, "")
        span = (
            f" ({format_value(low)} to {format_value(high)})"
            if low is not None and high is not None
            else ""
        )
        facts.append(("Challenger minus shown", f"{format_value(value)}{unit}{span}"))
    facts += [
        (name.replace("_", " ").capitalize(), _short(body[name]))
        for name in ("rows", "unlike", "labels", "users", "needed", "budget")
        if body.get(name) is not None
    ]
    return {
        "verdict": verdict,
        "tone": VERDICTS.get(verdict, "unsure"),
        "because": _reason(body),
        "next": NEXT.get(str(body.get("next")), ""),
        "facts": [(name, plain(value)) for name, value in facts if value is not None],
    }


def _retest_row(event: Event) -> tuple[str, str, str, str]:
    """A re-test: time, score, rows, and the result in a sentence."""
    body = event.body
    name = str(body.get("metric") or "")
    estimate = Estimate(body.get("value"), body.get("low"), body.get("high"))
    score_text = f"{number(estimate.value, name)} {interval(estimate, name)}".strip()
    return moment_of(event.at), score_text, count(body.get("n")), _reason(body)


def _retest_chart(tests: Sequence[Event]) -> Markup:
    """The re-tests of one metric in order, with the lower limit of the test score."""
    names = [str(one.body.get("metric")) for one in tests]
    same_metric = [one for one, name in zip(tests, names, strict=True) if name == names[-1]]
    values = [one.body.get("value") for one in same_metric]
    if sum(isinstance(one, (int, float)) for one in values) < 2:
        return Markup("")
    all_series = [
        ChartSeries(title, style, tuple(finite(one.body.get(key)) for one in same_metric))
        for title, style, key in (
            ("Accuracy", "valid", "value"),
            ("Lower limit", "train", "low"),
            ("Lower limit of the test score", "refined", "promised"),
        )
    ]
    steps = tuple(range(1, len(same_metric) + 1))
    metric = "accuracy" if is_rate(names[-1]) else names[-1]
    series = tuple(one for one in all_series if any(x is not None for x in one.values))
    chart = CurvesChart(
        "trend", "Re-tests", metric, steps, (None,) * len(steps), series, None, "test"
    )
    return draw_curves(chart)


def _event_view(event: Event) -> Mapping[str, Any]:
    """An event in words: its reason where it has one, else ``pairs`` of its values."""
    body = event.body
    return {
        "at": event.at,
        "kind": plain(event.kind),
        "tone": "bad" if event.kind in ALARMING or body.get("alarm") is True else "info",
        "because": _reason(body),
        "pairs": tuple(_pairs(body)),
    }


def _reason(body: Mapping[str, Any]) -> str:
    return plain(body.get("because") or "", 600)


def _pairs(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The values of a record with their names, nested ones too, up to a maximum."""
    left = MAX_PAIRS
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
        return plain(", ".join(_short(one) for one in value[:12]), MAX_LENGTH)
    if isinstance(value, Mapping):
        return plain(", ".join(f"{k} {_short(v)}" for k, v in list(value.items())[:6]), MAX_LENGTH)
    return plain(value, MAX_LENGTH)


# Event types: rows unlike the reference, the description of the new distribution, error rate above
# the allowed one.
ALARM, NEW_DISTRIBUTION, HARM = "drift", "drift regime", "harm"
MAX_ALARMS, MAX_TERMS, MAX_EXAMPLES = 10, 16, 5


def drift_view(
    summary: Mapping[str, Any] | None, events: Sequence[Event]
) -> Mapping[str, Any] | None:
    """The drift of a service from the observer's latest ``summary`` and the events, by names in the
    template; ``None`` where drift was never observed. ``terms`` distinguish the newest rows from
    the reference, ``examples`` are some of them, where the service may keep texts."""
    alarms = [one for one in events if one.kind in (ALARM, HARM)]
    if summary is None and not alarms:
        return None
    summary = summary or {}
    distributions = [one for one in events if one.kind == NEW_DISTRIBUTION]
    distribution = distributions[-1].body if distributions else {}
    rows = summary.get("rows")
    if alarms:
        because = _alarm_sentence(alarms[-1])
    elif summary.get("why"):
        because = plain(summary["why"], 300)
    else:
        because = f"no difference from the validation rows is shown in {count(rows)} rows"
    terms = [
        (plain(one.get("word"), 60), *(_rate(one.get(key)) for key in ("now", "then")))
        for one in _objects(distribution.get("terms"))
    ]
    texts = [one["text"] for one in _objects(distribution.get("examples")) if one.get("text")]
    return {
        "tone": "bad" if alarms else "good" if rows else "unsure",
        "verdict": f"{len(alarms)} alarm{'s' * (len(alarms) != 1)}" if alarms else "no alarm",
        "because": because,
        "facts": tuple(_drift_facts(summary)),
        "alarms": [(one.at, _alarm_sentence(one)) for one in reversed(alarms)][:MAX_ALARMS],
        "terms": terms[:MAX_TERMS],
        "examples": [plain(text, 300) for text in texts[:MAX_EXAMPLES]],
    }


def _alarm_sentence(event: Event) -> str:
    body = event.body
    if body.get("because"):
        return plain(body["because"], 600)
    if event.kind != HARM:
        return plain(event.kind)
    sentence = "the error rate is above the allowed one"
    wrong, labels = body.get("wrong"), body.get("labels")
    if not isinstance(wrong, int) or not isinstance(labels, int):
        return sentence
    return f"{sentence}: {wrong:,} of {labels:,} labelled rows that were drawn uniformly are wrong"


def _drift_facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if summary.get("rows") is not None:
        yield "Rows monitored", count(summary["rows"])
    if summary.get("between_alarms") is not None:
        between = count(summary["between_alarms"])
        yield "Mean number of clean rows between false alarms, at least", between
    if "accuracy_estimated" in summary:
        reason = f"unknown: {plain(summary.get('accuracy_why') or 'no reason given', 200)}"
        known = summary["accuracy_estimated"] is not None
        accuracy = _estimate(summary, "accuracy_estimated", "accuracy") if known else reason
        yield "Accuracy, estimated without labels", accuracy
    if summary.get("accuracy_labelled") is not None:
        yield "Accuracy, from labels", _estimate(summary, "accuracy_labelled", "accuracy_labelled")
    if summary.get("labels") is not None:
        yield "Labels of rows drawn uniformly", count(summary["labels"])


def _estimate(summary: Mapping[str, Any], name: str, bounds_key: str) -> str:
    estimate = Estimate(
        summary[name], summary.get(f"{bounds_key}_low"), summary.get(f"{bounds_key}_high")
    )
    span = interval(estimate, "accuracy")
    return number(estimate.value, "accuracy") + (f" ({span})" if span else "")


def _objects(values: object) -> Iterator[Mapping[str, Any]]:
    """The objects of a list from an untrusted source."""
    for one in values if isinstance(values, list) else ():
        if isinstance(one, Mapping):
            yield one


def _rate(value: Any) -> str:
    """A share as text; a dash for any other value."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number(float(value) if known and 0 <= value <= 1 else None, "accuracy")
