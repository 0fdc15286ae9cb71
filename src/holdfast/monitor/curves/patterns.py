"""Patterns that people ask about when they see a learning curve, beside its verdict: a training
loss in stairs, a validation loss below the training loss, a loss that rises while a metric
improves, single spikes. Each says what it means; none of them changes the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.curves import Curves, Series, logged_position
from holdfast.core.metric_names import LOWER_IS_BETTER, metric_words
from holdfast.core.records import Snapshot
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.monitor.curves.facts import CurveFacts, curve_facts
from holdfast.monitor.curves.shape import costs
from holdfast.monitor.curves.words import rise_phrase
from holdfast.stats.series import around, noise_of, spike_places

# Points of a training loss on each side of an epoch's end, and per epoch at least.
BESIDE, PER_EPOCH = 5, 10
# Standard deviations of its noise: a drop at an epoch's end.
CLEAR = 4.0
# The evaluations at which validation is below training.
MOST = 0.75


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern by its ``name``; ``at`` are its positions on the log's axis, ``because`` what is
    seen, ``meaning`` what it says about the run."""

    name: str
    at: tuple[float, ...]
    because: str
    meaning: str

    def to_json(self) -> dict[str, Any]:
        positions = [logged_position(one) for one in self.at[:100]]
        return {**{k: getattr(self, k) for k in ("name", "because", "meaning")}, "at": positions}


def stairs(facts: CurveFacts) -> Pattern | None:
    """A training loss that falls at the ends of epochs, and hardly within them."""
    curves = facts.curves
    train = None if curves.train is None else curves.train.finite
    ends = [] if train is None else _epoch_ends(curves, train)
    if train is None or len(ends) < 2:
        return None
    values = costs(train)
    drops, within = [], []
    edges = [*ends, len(values)]
    for number, end in enumerate(ends):
        after = values[end : min(end + BESIDE, edges[number + 1])]
        drops.append(float(np.median(values[end - BESIDE : end]) - np.median(after)))
        epoch = values[end : edges[number + 1]]
        if len(epoch) >= 2 * BESIDE:
            within.append(float(np.median(epoch[:BESIDE]) - np.median(epoch[-BESIDE:])))
    # Of a difference between two medians of a few points.
    noise = noise_of(values) * math.sqrt(2 * math.pi / (2 * BESIDE))
    clear = [at for at, drop in zip(ends, drops, strict=True) if drop > CLEAR * noise]
    if len(clear) < 2 or sum(drops) < 2 * sum(within):
        return None
    share = sum(drops) / max(sum(drops) + sum(within), 1e-12)
    return Pattern(
        "stairs",
        tuple(float(train.positions[at]) for at in clear),
        f"{train.name} falls at the ends of {len(clear)} epochs "
        f"({percent_phrase(min(1.0, share))} of its decrease after the first epoch) and hardly "
        "within them",
        "the model recognises rows that it sees again: it memorizes them in one pass. This is "
        "usual for large models on few rows; the validation loss says whether it harms",
    )


def _epoch_ends(curves: Curves, train: Series) -> list[int]:
    """The first point of each epoch but the first, where all epochs have enough points."""
    epochs = curves.epochs
    if curves.axis == "epoch":
        at = train.positions
    elif epochs is not None and len(epochs.finite) > 1:
        at = np.interp(train.positions, epochs.finite.positions, epochs.finite.values)
    else:
        return []
    # A value that is logged at the end of an epoch belongs to it.
    number = np.ceil(at - 1e-6)
    ends = np.flatnonzero(np.diff(number) > 0) + 1
    sizes = np.diff([0, *ends.tolist()])
    return ends.tolist() if len(ends) and sizes.min() >= PER_EPOCH else []


def below_training(facts: CurveFacts) -> Pattern | None:
    """A validation loss below the training loss at most evaluations."""
    curves, valid, train = facts.curves, facts.valid, facts.train
    if not curves.comparable or valid is None or train is None or facts.valid_is_metric:
        return None
    places = valid.at[1:]
    if len(places) < 3:
        return None
    theirs = np.array([train.value_at(float(place)) for place in places])
    lower = theirs - valid.cost[1:]
    below, spread = lower > 0, float(lower.std(ddof=1)) / math.sqrt(len(lower))
    if below.mean() < MOST or lower.mean() < max(3 * spread, 0.02 * float(theirs.mean())):
        return None
    assert curves.valid is not None
    assert curves.train is not None
    return Pattern(
        "validation below training",
        tuple(float(place) for place in places[below]),
        f"{curves.valid.name} is below {curves.train.name} at "
        f"{count_phrase(int(below.sum()), 'evaluation')} of {len(below)} after the first",
        "usually harmless: the training loss is measured with dropout and augmentation, and on a "
        "model that was still worse. Otherwise the validation rows are easier, or duplicates of "
        "training rows: check with `holdfast audit TRAIN --against VALID`",
    )


def parts_from_metric(facts: CurveFacts) -> Pattern | None:
    """A validation loss that rises while the metric on the same rows improves."""
    valid, metric, change = facts.valid, facts.metric, facts.metric_change
    if valid is None or metric is None or change is None or not valid.beyond_doubt:
        return None
    noise = metric.noise * math.sqrt(2)
    if change < max(facts.unit, 2 * noise) or valid.rise_share < 0.02:
        return None
    assert facts.curves.valid is not None
    assert facts.curves.valid_metric is not None
    return Pattern(
        "loss and metric part",
        (valid.since,),
        f"since {facts.curves.axis} {logged_position(valid.since):g} {facts.curves.valid.name} "
        f"rises by {rise_phrase(valid.rise, valid.floor)}, while {facts.curves.valid_metric.name} "
        f"improves by {change / facts.unit:.3g} points",
        "the predictions improve, but their probabilities become overconfident: a few confident "
        "errors raise the loss. Choose the checkpoint by what you use: the metric for decisions, "
        "the loss for probabilities (temperature scaling lowers it)",
    )


def patterns_of_run(history: Sequence[Snapshot]) -> tuple[Pattern, ...]:
    """The one pattern that needs telling in a run of ours: its validation loss rose while a metric
    improved. Its losses are measured without dropout, and the rows of spikes are findings."""
    if not history:
        return ()
    steps = np.array([one.step for one in history], dtype=np.float64)
    losses = np.array([one.valid_loss for one in history])
    for name in history[-1].valid_metrics:
        if name in LOWER_IS_BETTER:
            continue
        values = np.array([one.valid_metrics.get(name, math.nan) for one in history])
        if not np.isfinite(values).any() or not np.isfinite(losses).any():
            continue
        curves = Curves(
            "holdfast",
            "step",
            valid=Series("validation loss", steps, losses),
            valid_metric=Series(metric_words(name), steps, values, higher_is_better=True),
        )
        found = parts_from_metric(curve_facts(curves))
        if found is not None:
            return (found,)
    return ()


def spikes(facts: CurveFacts) -> Pattern | None:
    """Single points of the training loss far above those around them, which come back at once."""
    train = None if facts.curves.train is None else facts.curves.train.finite
    if train is None or not len(train):
        return None
    values = costs(train)
    at = spike_places(values)
    if not at:
        return None
    largest = max(at, key=lambda place: values[place] - around(values, place))
    ratio = values[largest] / max(around(values, largest), 1e-12)
    places = tuple(float(train.positions[place]) for place in at)
    return Pattern(
        "spikes",
        places,
        f"{train.name} jumps and comes back at {count_phrase(len(at), 'place')}, the largest at "
        f"{facts.curves.axis} {logged_position(float(train.positions[largest])):g} "
        f"({ratio:.2g} times the values around it)",
        "single batches of odd rows (very long, wrong labels, other languages), or a learning rate "
        "near the highest that works. Clip gradients, and look at the rows of these steps",
    )


PATTERNS: tuple[Callable[[CurveFacts], Pattern | None], ...] = (
    parts_from_metric,
    below_training,
    stairs,
    spikes,
)


def patterns_of(curves: Curves) -> tuple[Pattern, ...]:
    """The patterns in a log, in the order of what they say about the run."""
    facts = curve_facts(curves)
    found = (pattern(facts) for pattern in PATTERNS)
    return tuple(one for one in found if one is not None)
