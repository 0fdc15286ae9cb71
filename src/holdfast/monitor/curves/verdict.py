"""Verdicts from scalar curves: a foreign log, where nobody kept the losses of single rows.

Read top to bottom, the first line that holds gives the label. Shapes, rises and noise are those of
``curves/shape.py``.

1. losses stop being numbers and never are again → ``diverging``; so is a training loss that ends
   well above where it began, or has given back half of what it had learned.
2. no validation → ``inconclusive``.
3. validation far better than training through the second half, by loss *and* metric → ``leaking``.
4. **the validation loss has risen, by an amount that counts, beyond what its noise may show and
   1.5 times beyond what it has come back from**: more than 5 % of its lowest value, or half of that
   if it gives back more than an eighth of what had been learned. ``diverging`` if the training loss
   rose as well. ``overfit`` where the metric fell since, or no metric is logged, or its gap between
   training rows and validation is above 10 points by its lower bound; ``miscalibrated`` where the
   metric held and the gap's upper bound is below 10; between, ``overfit`` where more than half of
   what the loss had learned is given back, else ``inconclusive``.
5. **no such rise, but the gap's lower bound is above 10 points**: ``overfit`` where validation has
   no loss at all, ``memorizing`` where the training rows are at their floor (95 % right).
6. fewer than four evaluations (since a level shift, if there is one) → ``inconclusive``.
7. a rise that is too small to count or may be noise (but twice its deviation), with the training
   rows at their floor → ``memorizing``.
8. a rise that counts but may be noise, or come back → ``inconclusive``, with what would tell.
9. hardly anything was learned, or the run ended while falling as fast as ever → ``underfit``.
10. validation still falls → ``learning``, with a wide gap named.
11. validation is flat within narrow noise → ``healthy``, likewise; else → ``inconclusive``.

The gap is that of the last look; the sentence adds the best state's, and says whether the answers,
the certainty, or both got worse (``CurveGap``, ``curves/rise.py``). A metric that rises stands in
for the validation loss where there is none, as 1 − metric. What stands for the loss of the majority
class is the loss with which the log begins. ``confidence`` is the share of a normal curve below the
rise, less the √(2 ln k) that the choice of the lowest costs, and never more than 0.9 (0.8 without a
training loss): from curves alone nobody is surer. It is 0 for ``inconclusive``. Compared with
``judge``, which pairs the losses of rows, doubt is wider: points of one run depend on each other,
and a running training loss is measured with dropout on a moving model, which the sentence says.

The numbers of lines 4 and 5 were chosen on simulated histories (``benchmarks/verdicts.py``).
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.curves import Curves
from holdfast.core.labels import Label
from holdfast.core.records import Verdict
from holdfast.monitor.curves import rise
from holdfast.monitor.curves.facts import (
    QUARTER,
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
    place,
    rise_confidence,
    shape,
    train_name,
    valid_name,
    verdict,
)
from holdfast.monitor.limits import END, GAP
from holdfast.monitor.symptom import TOO_LONG


def broken(facts: CurveFacts) -> Verdict | None:
    """Losses that stop being numbers and never are again."""
    breaks = []
    for one in (facts.curves.train, facts.curves.valid):
        # One bad point in the middle, as mixed precision makes them, is none.
        if one is not None and len(one) and not np.isfinite(one.values[-1]):
            good = np.flatnonzero(np.isfinite(one.values))
            breaks.append((float(one.positions[good[-1] + 1 if len(good) else 0]), one))
    if not breaks:
        return None
    at, series = min(breaks, key=lambda found: found[0])
    none = "" if len(series.finite) else ", and no value of it is finite"
    cause = "the learning rate is too high, or the precision too low"
    finding = "diverging"
    # Every evaluation is broken while training goes on: not the run, the evaluation is at fault.
    if series is facts.curves.valid and facts.train is not None and none:
        cause = "evaluation overflows in low precision, or its rows have no answer to predict"
        finding = "broken evaluation"
    because = f"{series.name} is not a number from {place(facts, at)} on{none}"
    return verdict(facts, "diverging", because, 0.9, since=at, cause=cause, finding=finding)


def exploded(facts: CurveFacts) -> Verdict | None:
    """A training loss that ends well above its start, or gave back half of what it learned."""
    train = facts.train
    if train is None or len(train.cost) < FEWEST or not train.beyond_doubt:
        return None
    above = train.end > 1.1 * train.start
    if not above and not (train.given_back > 0.5 and train.rise_share > 0.1):
        return None
    than = "where it began" if above else "its lowest"
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
    """No validation series: nothing to judge by."""
    if facts.curves.valid is not None:
        return None
    because = "the log has no validation series, so nothing can be said about unseen data"
    return verdict(facts, "inconclusive", because, 0.0, finding="no validation")


def too_little(facts: CurveFacts) -> Verdict | None:
    """Too few evaluations to judge a course, in all or since a level shift."""
    assert facts.curves.valid is not None  # `no_validation` came before
    valid = facts.valid
    if valid is not None and valid.shifted_at is not None:
        if len(valid.cost) >= FEWEST:
            return None
        because = (
            f"{valid_name(facts)} rose in one step at {place(facts, valid.shifted_at)} and falls "
            "since, as after a resume with another scale of the loss or a restart of the rate; "
            f"{count_evaluations(len(valid.cost))} since then are too few, {FEWEST} is the least"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="shift")
    if valid is None or facts.evaluations < FEWEST:
        because = (
            f"{count_evaluations(facts.evaluations)} with a finite "
            f"{facts.curves.valid.name} are too few; "
            f"{FEWEST} is the least, and about {2 * SETTLED} make a rise distinct from noise"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="few points")
    return None


def leaking(facts: CurveFacts) -> Verdict | None:
    """Better on validation by both measures: the level alone also differs with dropout, and where
    a trainer adds up the losses of accumulated batches."""
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
        f"validation is far better than training throughout (loss {1 / ratio:.0%} of it, metric "
        f"{-gap / facts.unit:.0f} points better)"
    )
    return verdict(
        facts,
        "leaking",
        because,
        0.6,
        cause="copies of the training rows among the validation "
        "rows, a feature that gives the answer away, or very strong dropout or augmentation",
        finding="leak",
    )


def parted(facts: CurveFacts) -> Verdict | None:
    """The metric is far better on the training rows. Without a validation loss nobody knows whether
    one rose: overfit, by the gap alone. With one that has not risen: memorizing, where the training
    rows are at their floor."""
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
    """A rise that is too small to count, or may be noise, with the training rows at their floor."""
    valid = shape(facts)
    if not training_fitted(facts) or facts.evaluations < SETTLED or valid.comes_back:
        return None
    gap, small = gap_at_end(facts), valid.rise_share < MARGIN
    if (small and not valid.beyond_doubt) or valid.rise <= ENOUGH * valid.noise:
        return None
    # A logged gap below the line is a better witness than a rise in doubt.
    if gap is not None and (gap.narrow or (gap.value is not None and gap.value <= GAP)):
        return None
    because = (
        f"{train_name(facts)} is at its floor, and {valid_name(facts)} has gained nothing since "
        f"{place(facts, facts.best)}: it is {valid.rise_share:.1%} higher"
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
    """Hardly anything was learned, or the run ended at full speed."""
    valid = shape(facts)
    series = [one for one in (facts.train, facts.valid) if one is not None]
    # A log cut off by a resume says little of what was learned before.
    late = not min(float(s.at[0]) for s in series) <= max(float(s.at[-1]) for s in series) / 2
    planned, last = facts.curves.planned_end, facts.curves.last
    # Whether the run came to where it was planned to end, as far as the log knows.
    complete = planned is None or last is None or last >= END * planned
    if facts.evaluations <= FEWEST or late or not complete:
        return None
    # After a shift of the level nobody sees what had been learned before.
    if training_fitted(facts) or valid.shifted_at is not None:
        return None
    learned_loss = valid.start - min(valid.floor, valid.end)
    # Without a training loss it cannot say that nothing was learned.
    train_fell = 1.0 if facts.train is None else 1 - facts.train.end / (facts.train.start or 1.0)
    if learned_loss < MARGIN * valid.start and train_fell < 2 * MARGIN:
        because = f"{valid_name(facts)} fell by {learned_loss / valid.start:.0%} in the whole run"
        if facts.train is not None:
            because += f", {train_name(facts)} by {max(0, train_fell):.0%}"
        return verdict(
            facts,
            "underfit",
            because,
            0.7,
            finding="no progress",
            cause="too low a learning rate, too small a model, or labels that do not fit",
        )
    recent = valid.fall_over(QUARTER)
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
    """Validation still falls."""
    valid = shape(facts)
    recent, learned_loss = valid.fall_over(QUARTER), valid.start - valid.floor
    # Nothing beside what was learned, beside the level, or beside the noise.
    least = max(MARGIN * learned_loss, 0.01 * valid.end, _no_trend(valid))
    if recent <= least and not (valid.falls_throughout and recent > MARGIN * learned_loss):
        return None
    because = f"{valid_name(facts)} still fell by {recent / valid.end:.1%} over the last quarter"
    because += gap_named(facts)
    finding = "fitted" if training_fitted(facts) else "falling"
    return verdict(facts, "learning", because, 0.8, since=float(valid.at[0]), finding=finding)


def _no_trend(valid: CurveShape) -> float:
    """A fall that noise, or the way down from the top of a cycle, may show."""
    return max(ENOUGH * valid.noise, RECOVERED * valid.recovered)


def healthy(facts: CurveFacts) -> Verdict | None:
    """Validation is flat, and its noise is narrow enough to say so; inconclusive where the gap is
    above the line, but the rows are too few to say that it is."""
    valid = shape(facts)
    small = max(MARGIN * valid.floor, GIVEN_BACK * (valid.start - valid.floor))
    if ENOUGH * valid.noise > small or valid.end > valid.start:
        return None
    because = (
        f"{valid_name(facts)} has stopped falling and ends {valid.rise_share:.1%} above its lowest"
        f" at {place(facts, facts.best)}"
    )
    gap = gap_at_end(facts)
    if gap is not None and gap.open:
        because += f", but {gap_words(facts, gap)} may be anything from {100 * gap.low:.0f} to "
        because += f"{100 * gap.high:.0f} points with so few validation rows"
        return verdict(facts, "inconclusive", because, 0.0, finding="few rows")
    return verdict(facts, "healthy", because + gap_named(facts), 0.7, since=facts.best)


def unclear(facts: CurveFacts) -> Verdict:
    """What is left: the noise is too wide, or the log too short."""
    valid = shape(facts)
    if valid.end > valid.start:
        because = (
            f"{valid_name(facts)} ends above where the log begins, by {valid.rise_share:.1%}, "
            f"which is too little to count; {evaluations_needed(facts, 1.0)}"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="few points")
    wide = ENOUGH * valid.noise / valid.floor if valid.floor > 0 else math.inf
    because = (
        f"{valid_name(facts)} jumps by about {wide:.0%}, so its direction cannot be told; "
        f"{evaluations_needed(facts, wide / MARGIN)}"
    )
    return verdict(facts, "inconclusive", because, 0.0, finding="noise")


# The first that has an answer gives the verdict: each takes what came before it for excluded.
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
    """The verdict on a log, a pure function of its curves."""
    facts = curve_facts(curves)
    for rule in RULES:
        verdict = rule(facts)
        if verdict is not None:
            return verdict
    return unclear(facts)
