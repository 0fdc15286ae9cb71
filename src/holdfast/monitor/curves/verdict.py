"""Verdicts from scalar curves: the log of another program, without row-level losses.

The first rule that holds, from top to bottom, gives the label. Shapes, rises and noise are those of
``curves/shape.py``.

1. losses become and stay not finite → ``diverging``; so does a training loss that ends well above
   its first value, or has lost half of what was learned.
2. no validation → ``inconclusive``.
3. validation far better than training through the second half, by loss *and* metric → ``leaking``.
4. **the validation loss has risen by an amount that matters, by more than its noise may cause, and
   by 1.5 times the rises that it recovered from**: more than 5 % of its lowest value, or half of
   that if more than an eighth of what was learned is lost. ``diverging`` if the training loss rose
   as well. ``overfit`` where the metric fell since, or no metric is logged, or its gap between
   training rows and validation rows is above 10 points by its lower bound; ``miscalibrated`` where
   the metric held and the gap's upper bound is below 10; otherwise ``overfit`` where more than half
   of what the loss had learned is lost, else ``inconclusive``.
5. **no such rise, but the gap's lower bound is above 10 points**: ``overfit`` where the log has no
   validation loss, ``memorizing`` where the training rows are fitted (95 % correct).
6. fewer than four evaluations (since a level shift, if there is one) → ``inconclusive``.
7. a rise that is too small to matter or may be noise (but is twice its deviation), with the
   training rows fitted → ``memorizing``.
8. a rise that matters but may be noise, or may reverse → ``inconclusive``, with what would decide.
9. hardly anything was learned, or the run ended while falling as fast as before → ``underfit``.
10. validation still falls → ``learning``, with a wide gap named.
11. validation is flat within narrow noise → ``healthy``, with a wide gap named; else →
    ``inconclusive``.

The gap is that of the last evaluation. The sentence adds the gap at the best evaluation, and says
whether the predictions, their probabilities, or both got worse (``CurveGap``, ``curves/rise.py``).
Where the log has no validation loss, 1 − metric replaces it. The loss at which the log begins
replaces the loss of the majority class. ``confidence`` is the normal probability below the rise,
less the √(2 ln k) for selecting the lowest value, and at most 0.9 (0.8 without a training loss):
curves do not justify more. It is 0 for ``inconclusive``. Compared with ``judge``, which pairs the
losses of rows, the uncertainty is larger: points of one run depend on each other, and a running
training loss is measured with dropout while the model changes, as the sentence says.

The numbers of rules 4 and 5 were chosen on simulated histories (``benchmarks/verdicts.py``).
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.curves import Curves
from holdfast.core.labels import Label
from holdfast.core.records import Verdict
from holdfast.core.wording import percent_phrase
from holdfast.monitor.curves import rise
from holdfast.monitor.curves.facts import (
    CurveFacts,
    curve_facts,
    gap_at_end,
    parted_since,
    training_fitted,
)
from holdfast.monitor.curves.shape import ENOUGH, RECOVERED, CurveShape
from holdfast.monitor.curves.words import (
    FEWEST,
    GIVEN_BACK,
    MARGIN,
    SETTLED,
    count_evaluations,
    evaluations_needed,
    gap_named,
    gap_words,
    noise_finding,
    place,
    rise_confidence,
    rise_phrase,
    shape,
    smoothed_name,
    train_name,
    valid_name,
    verdict,
)
from holdfast.monitor.limits import END, GAP
from holdfast.monitor.symptom import TOO_LONG


def broken(facts: CurveFacts) -> Verdict | None:
    """Losses that become and stay not finite."""
    breaks = []
    for one in (facts.curves.train, facts.curves.valid):
        # One bad point in the middle, as mixed precision causes them, does not count.
        if one is not None and len(one) and not np.isfinite(one.values[-1]):
            good = np.flatnonzero(np.isfinite(one.values))
            breaks.append((float(one.positions[good[-1] + 1 if len(good) else 0]), one))
    if not breaks:
        return None
    at, series = min(breaks, key=lambda found: found[0])
    none = "" if len(series.finite) else ", and no value of it is finite"
    cause = "the learning rate is too high, or the precision is too low"
    finding = "diverging"
    # Every evaluation fails while training continues: the evaluation is at fault, not the run.
    if series is facts.curves.valid and facts.train is not None and none:
        cause = "evaluation overflows in low precision, or its rows have no target to predict"
        finding = "broken evaluation"
    because = f"{series.name} is not a finite number from {place(facts, at)} on{none}"
    return verdict(facts, "diverging", because, 0.9, since=at, cause=cause, finding=finding)


def exploded(facts: CurveFacts) -> Verdict | None:
    """A training loss that ends well above its start, or lost half of what was learned."""
    train = facts.train
    if train is None or len(train.cost) < FEWEST or not train.beyond_doubt:
        return None
    above = train.end > 1.1 * train.start
    if not above and not (train.given_back > 0.5 and train.rise_share > 0.1):
        return None
    than = "its first value" if above else "its lowest value"
    because = f"{train_name(facts)} ends at {train.end:.3g}, well above {than}"
    return verdict(
        facts,
        "diverging",
        because,
        rise_confidence(facts, train),
        since=train.since,
        cause="the learning rate is too high",
        finding="diverging",
    )


def no_validation(facts: CurveFacts) -> Verdict | None:
    """No validation series, so there is nothing to judge."""
    if facts.curves.valid is not None:
        return None
    because = "the log has no validation series, so nothing is known about unseen data"
    return verdict(facts, "inconclusive", because, 0.0, finding="no validation")


def too_little(facts: CurveFacts) -> Verdict | None:
    """Too few evaluations to judge a curve, in total or since a level shift."""
    assert facts.curves.valid is not None  # `no_validation` came before
    valid = facts.valid
    if valid is not None and valid.shifted_at is not None:
        if len(valid.cost) >= FEWEST:
            return None
        because = (
            f"{valid_name(facts)} rose in one step at {place(facts, valid.shifted_at)} and has "
            "fallen since, as after a resume with another scale of the loss or a restart of the "
            f"learning rate; the log has {count_evaluations(len(valid.cost))} since then, and at "
            f"least {FEWEST} are needed"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="shift")
    if valid is None or facts.evaluations < FEWEST:
        because = (
            f"the log has {count_evaluations(facts.evaluations)} with a finite "
            f"{facts.curves.valid.name}; at least {FEWEST} are needed, and about "
            f"{2 * SETTLED} to distinguish a rise from noise"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="few points")
    return None


def leaking(facts: CurveFacts) -> Verdict | None:
    """Validation is better than training by both measures. The loss level by itself also differs
    with dropout, and where a trainer sums the losses of accumulated batches."""
    ratio, gap = facts.level_ratio, facts.metric_gap
    if facts.evaluations < FEWEST or ratio is None or gap is None:
        return None
    if not (ratio > 2 and gap < -5 * facts.unit):
        return None
    assert facts.metric is not None
    assert facts.train_metric is not None
    half = len(facts.metric.smooth) // 2
    theirs = [facts.train_metric.value_at(float(at)) for at in facts.metric.at[half:]]
    if not np.all(theirs - facts.metric.smooth[half:] > 5 * facts.unit):
        return None
    because = (
        f"validation is far better than training throughout (loss {percent_phrase(1 / ratio)} "
        f"of the training loss, metric {-gap / facts.unit:.0f} points better)"
    )
    return verdict(
        facts,
        "leaking",
        because,
        0.6,
        cause="duplicates of training rows in the validation set, "
        "a feature that reveals the label, or very strong dropout or augmentation",
        finding="leak",
    )


def parted(facts: CurveFacts) -> Verdict | None:
    """The metric is far better on the training rows. Without a validation loss it is unknown
    whether that rose: overfit, by the gap only. With one that has not risen: memorizing, where the
    training rows are fitted."""
    gap = gap_at_end(facts)
    if gap is None or not gap.wide:
        return None
    label: Label
    if facts.without_losses:
        because = f"{gap_words(facts, gap)}; the log has no validation loss"
        label, confidence = "overfit", 0.8
    elif gap.fitted and facts.valid is not None:
        because = f"{gap_words(facts, gap)}, while {valid_name(facts)} has not clearly risen"
        label, confidence = "memorizing", 0.7
    else:
        return None
    since = parted_since(facts)
    return verdict(facts, label, because, confidence, since=since, cause=TOO_LONG, finding="gap")


def at_the_floor(facts: CurveFacts) -> Verdict | None:
    """A rise that is too small to matter, or may be noise, with the training rows fitted."""
    valid = shape(facts)
    if not training_fitted(facts) or facts.evaluations < SETTLED or valid.comes_back:
        return None
    gap, small = gap_at_end(facts), valid.rise_share < MARGIN
    if (small and not valid.beyond_doubt) or valid.rise <= ENOUGH * valid.noise:
        return None
    # A logged gap below the threshold is better evidence than an uncertain rise.
    if gap is not None and (gap.narrow or (gap.value is not None and gap.value <= GAP)):
        return None
    because = (
        f"{train_name(facts)} is near zero, and {valid_name(facts)} has not improved since "
        f"{place(facts, facts.best)}: it is {rise_phrase(valid.rise, valid.floor, 1)} higher"
    )
    return verdict(
        facts,
        "memorizing",
        because + gap_named(facts),
        0.6,
        since=facts.best,
        cause=TOO_LONG,
        finding="rise",
    )


def underfit(facts: CurveFacts) -> Verdict | None:
    """Hardly anything was learned, or the run ended while the loss fell as fast as before."""
    valid = shape(facts)
    series = [one for one in (facts.train, facts.valid) if one is not None]
    # A log that a resume cut off shows little of what was learned before.
    late = not min(float(s.at[0]) for s in series) <= max(float(s.at[-1]) for s in series) / 2
    planned, last = facts.curves.planned_end, facts.curves.last
    # Whether the run reached its planned end, as far as the log shows it.
    complete = planned is None or last is None or last >= END * planned
    if facts.evaluations <= FEWEST or late or not complete:
        return None
    # After a level shift it is unknown what had been learned before.
    if training_fitted(facts) or valid.shifted_at is not None:
        return None
    learned_loss = valid.start - min(valid.floor, valid.end)
    # Without a training loss it is unknown whether nothing was learned.
    train_fell = 1.0 if facts.train is None else 1 - facts.train.end / (facts.train.start or 1.0)
    if learned_loss < MARGIN * valid.start and train_fell < 2 * MARGIN:
        because = (
            f"{valid_name(facts)} fell by {percent_phrase(learned_loss / valid.start)} in the "
            "entire run"
        )
        if facts.train is not None:
            because += f", {train_name(facts)} by {percent_phrase(max(0, train_fell))}"
        return verdict(
            facts,
            "underfit",
            because,
            0.7,
            finding="no progress",
            cause="too low a learning rate, too small a model, or labels that do not fit",
        )
    recent = valid.late_fall
    if facts.evaluations < SETTLED or recent < 0.2 * learned_loss or recent <= _no_trend(valid):
        return None
    because = f"{valid_name(facts)} fell as fast in the last quarter ({recent:.3g}) as before"
    return verdict(
        facts,
        "underfit",
        because,
        0.7,
        finding="no progress",
        cause="stopped too early, or too low a learning rate",
    )


def learning(facts: CurveFacts) -> Verdict | None:
    """The validation loss still falls."""
    valid = shape(facts)
    recent, learned_loss = valid.late_fall, valid.start - valid.floor
    # A fall below these is negligible compared with what was learned, the level, or the noise.
    least = max(MARGIN * learned_loss, 0.01 * valid.end, _no_trend(valid))
    if recent <= least and not (valid.falls_throughout and recent > MARGIN * learned_loss):
        return None
    because = (
        f"{valid_name(facts)} still fell by {rise_phrase(recent, valid.end, 1)} over the last "
        "quarter"
    )
    because += gap_named(facts)
    finding = "fitted" if training_fitted(facts) else "falling"
    return verdict(facts, "learning", because, 0.8, since=float(valid.at[0]), finding=finding)


def _no_trend(valid: CurveShape) -> float:
    """A fall that may come from noise, or from leaving the top of a learning-rate cycle."""
    return max(ENOUGH * valid.noise, RECOVERED * valid.recovered)


def healthy(facts: CurveFacts) -> Verdict | None:
    """Validation is flat, and its noise is low enough to say so; inconclusive where the gap is
    above the threshold but the rows are too few to prove it."""
    valid = shape(facts)
    small = max(MARGIN * valid.floor, GIVEN_BACK * (valid.start - valid.floor))
    if ENOUGH * valid.noise > small or valid.end > valid.start:
        return None
    # A smaller rise would be shown as 0.0 %.
    if valid.rise_share >= 5e-4:
        rise = rise_phrase(valid.rise, valid.floor, 1)
        course = (
            f"has stopped falling and ends {rise} above its lowest value (at "
            f"{place(facts, facts.best)})"
        )
    elif valid.is_past_floor:
        course = "is flat: it ends at its lowest value"
    elif valid.window > 1:
        course = f"is flat: its lowest value is among the last {valid.window} evaluations"
    else:
        course = "is flat: its lowest value is at the last evaluation"
    because = f"{smoothed_name(facts)} {course}"
    gap = gap_at_end(facts)
    if gap is not None and gap.open:
        because += (
            f"; {gap_words(facts, gap)}, but with so few validation rows the gap may be anything "
            f"from {100 * gap.low:.0f} to {100 * gap.high:.0f} points"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="few rows")
    return verdict(facts, "healthy", because + gap_named(facts), 0.7, since=facts.best)


def unclear(facts: CurveFacts) -> Verdict:
    """No other rule holds: the noise is too large, or the log too short."""
    valid = shape(facts)
    if valid.end > valid.start:
        rise = rise_phrase(valid.end - valid.start, valid.start, 1)
        because = (
            f"{smoothed_name(facts)} did not fall: it ends {rise} above its first value, which is "
            f"too little to be a rise; {evaluations_needed(facts, 1.0)}"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="few points")
    wide = ENOUGH * valid.noise
    times = wide / (MARGIN * valid.floor) if valid.floor > 0 else math.inf
    because = (
        f"{valid_name(facts)} varies by about {rise_phrase(wide, valid.floor)}, so its trend is "
        f"unknown; {evaluations_needed(facts, times)}"
    )
    finding = noise_finding(times)
    return verdict(facts, "inconclusive", because, 0.0, finding=finding)


# The first rule with a verdict decides: each assumes that all rules before it gave none.
RULES = (
    broken,
    exploded,
    no_validation,
    leaking,
    rise.risen,
    parted,
    too_little,
    at_the_floor,
    rise.perhaps_risen,
    underfit,
    learning,
    healthy,
)


def judge_curves(curves: Curves) -> Verdict:
    """The verdict on a log: a pure function of its curves."""
    facts = curve_facts(curves)
    for rule in RULES:
        verdict = rule(facts)
        if verdict is not None:
            return verdict
    return unclear(facts)
