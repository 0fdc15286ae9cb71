"""The page of ``holdfast diagnose`` on a training log: verdict, learning curves, and decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from holdfast.core.curves import TRANSFORMERS, Curves, Series, logged_position
from holdfast.core.labels import verdict_title
from holdfast.core.records import Decision
from holdfast.report.charts.curves import ChartSeries, CurvesChart, draw_curves
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import compact, duration, strength
from holdfast.report.page import standalone
from holdfast.report.section import PagePart
from holdfast.report.view.headline import (
    SINCE,
    VERDICT,
    VERDICT_SENTENCES,
    HeadlineView,
    RemedyJson,
    evidence_line,
    settings_words,
    unless_unconfirmed,
)

if TYPE_CHECKING:
    from holdfast.core.records import Floats


MAX_POINTS = 160
PATTERNS = "sections/choices.html.j2"
# Of a log, Holdfast saved no best checkpoint, so two sentences differ.
SENTENCES = {"overfit": "The run overfits.", "learning": "The run is still learning."}


@dataclass(frozen=True, slots=True)
class CurveChart:
    """The chart of the losses with its legend and table; ``thinned`` says how many points are drawn
    out of how many."""

    chart: Markup
    metric_chart: Markup
    legend: tuple[tuple[str, str], ...]
    metric: str
    axis: str
    lines: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    thinned: str


def render_diagnosis(log: Curves, document: Mapping[str, object], name: str) -> str:
    """A self-contained page on a log: ``document`` is the JSON of ``diagnose --json``, ``name`` the
    path of the log as shown to readers."""
    words = Glossary()
    patterns: Any = document["patterns"]
    seen = [Decision(one["name"], one["because"], one["meaning"]) for one in patterns]
    sections = (
        PagePart("curves", "Learning curves", curve_chart(log)),
        *([PagePart("patterns", "Patterns in the curves", seen, PATTERNS)] if seen else []),
        PagePart("choices", "How the log was read", log.decisions),
    )
    return standalone(_headline(log, document, name), sections, words, f"{log.source} log")


def curve_chart(log: Curves) -> CurveChart:
    """The losses over the log's axis; the metrics too, where the log has them next to a loss."""
    places, note = _chart_positions(log)
    losses = _chart_series(log, places, (("train", log.train), ("valid", log.valid)))
    has_metric = (
        log.valid is not None and not log.valid.higher_is_better and log.valid_metric is not None
    )
    metrics = (("train", log.train_metric), ("valid", log.valid_metric)) if has_metric else ()
    rates = _chart_series(log, places, metrics)
    every = [*losses, *rates]
    return CurveChart(
        chart=_chart(log, "loss", f"Loss by {log.axis}", places, losses),
        metric_chart=_chart(log, "metric", f"Metric by {log.axis}", places, rates),
        legend=tuple((s.style, s.name) for s in losses),
        axis=log.axis,
        thinned=note,
        metric=log.valid_metric.name if has_metric and log.valid_metric else "",
        columns=tuple(s.name for s in every),
        lines=tuple(
            (f"{logged_position(float(place)):g}", *(compact(s.values[i]) for s in every))
            for i, place in enumerate(places)
        ),
    )


def _headline(log: Curves, document: Mapping[str, Any], name: str) -> HeadlineView:
    verdict = document["verdict"]
    tone, sentence = VERDICT_SENTENCES[verdict["label"]]
    sentence = SENTENCES.get(verdict["label"], sentence)
    tone, sentence = unless_unconfirmed(verdict, tone, sentence)
    return HeadlineView(
        title=name,
        tone=tone,
        tone_word=VERDICT,
        label=verdict_title(verdict["label"]),
        sentence=sentence,
        because=verdict["because"],
        facts=_fact_lines(log, document),
        cause=verdict["cause"] or "",
        evidence=tuple(map(evidence_line, verdict["evidence"])),
        remedies=tuple(_remedy(r, log.source) for r in verdict["remedies"]),
    )


def _fact_lines(log: Curves, document: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    verdict, best = document["verdict"], document["best_step"]
    facts = [("Strength of evidence", strength(verdict["confidence"]))]
    since = SINCE.get(verdict["label"], "Began at step").replace("step", log.axis)
    if verdict["since_step"] is not None and since:
        facts.append((since, f"{verdict['since_step']:,}"))
    if best is not None:
        facts.append((f"Best {log.axis}", f"{best:,}"))
    if log.last is not None:
        facts.append((f"Last {log.axis}", f"{logged_position(log.last):,}"))
    facts.append(("Evaluations", f"{document['points']:,}"))
    if log.seconds:
        facts.append(("Logged time", duration(log.seconds)))
    return tuple(facts)


def _remedy(raw: RemedyJson, source: str) -> tuple[str, str]:
    """The text of a remedy, and its settings, said to be Holdfast's where the log is another
    trainer's. A log of the Transformers trainer gets none: the text names the trainer's
    arguments."""
    ours = () if source == TRANSFORMERS else raw["set"]
    end = " In Holdfast:" if ours and source != "holdfast" else ""
    return f"{raw['do'][:1].upper()}{raw['do'][1:]}.{end}", settings_words(ours)


def _chart_positions(log: Curves) -> tuple[Floats, str]:
    """The positions to draw: the evaluations, else the training points; at most 160, including the
    first, the last and the best."""
    main = log.valid if log.valid is not None else log.train
    positions = main.positions if main is not None else np.array([0.0])
    if len(positions) <= MAX_POINTS:
        return positions, ""
    subset = positions[
        np.unique(np.linspace(0, len(positions) - 1, MAX_POINTS).round().astype(int))
    ]
    best = [] if log.best is None else [log.best]
    return np.union1d(subset, best), f"{len(subset)} of {len(positions):,} points are drawn."


def _chart_series(
    log: Curves, places: Floats, curves_: Sequence[tuple[str, Series | None]]
) -> list[ChartSeries]:
    return [
        ChartSeries(logged.name, style, _values_at(logged, places, mean=logged is log.train))
        for style, logged in curves_
        if logged is not None
    ]


def _values_at(logged: Series, places: Floats, mean: bool) -> tuple[float | None, ...]:
    """The value of a series at each place; for a training loss its mean since the place before."""
    ends = np.searchsorted(logged.positions, places, side="right")
    begins = np.concatenate([[0], ends[:-1]])
    drawn = []
    for first, after in zip(begins, ends, strict=True):
        part = logged.values[first if mean else max(first, after - 1) : after]
        known = part[np.isfinite(part)]
        drawn.append(float(known.mean()) if len(known) else None)
    return tuple(drawn)


def _chart(
    log: Curves, key: str, title: str, places: Floats, lines: Sequence[ChartSeries]
) -> Markup:
    if not lines:
        return Markup("")
    is_whole = [float(place).is_integer() for place in places]
    # The chart needs whole steps, and epochs may be logged as fractions.
    scale = 1 if all(is_whole) else 1000
    steps = tuple(round(scale * float(place)) for place in places)
    best = None if log.best is None else round(scale * log.best)
    axis = log.axis if scale == 1 else f"{log.axis} × 1000"
    nothing = (None,) * len(steps)
    return draw_curves(
        CurvesChart(key, title, "loss", steps, nothing, tuple(lines), best, axis, "best")
    )
