"""Rules for curves that have not risen: fitted, underfit, learning, healthy, unclear."""

from __future__ import annotations

import math

from holdfast.core.records import Verdict
from holdfast.monitor.curves.facts import QUARTER, CurveFacts
from holdfast.monitor.curves.gap import gap_at_end, parted_since, training_fitted
from holdfast.monitor.curves.shape import ENOUGH, RECOVERED, CurveShape
from holdfast.monitor.curves.words import (
    FEWEST,
    GIVEN_BACK,
    MARGIN,
    SETTLED,
    complete,
    from_the_start,
    gap_named,
    gap_words,
    needed,
    place,
    shape,
    train_name,
    valid_name,
    verdict,
)
from holdfast.monitor.limits import GAP


def parted(facts: CurveFacts) -> Verdict | None:
    """The metric is far better on the training rows. Without a validation loss nobody knows whether
    one rose: overfit, by the gap alone. With one that has not risen: memorizing, where the training
    rows are at their floor."""
    gap = gap_at_end(facts)
    if gap is None or not gap.wide:
        return None
    if facts.without_losses:
        because = f"{gap_words(facts, gap)}; the log has no validation loss"
        label, sure = ("overfit", 0.8)
    elif gap.fitted and facts.valid is not None:
        because = f"{gap_words(facts, gap)}, while {valid_name(facts)} has not clearly risen"
        label, sure = ("memorizing", 0.7)
    else:
        return None
    return verdict(
        facts,
        "overfit" if label == "overfit" else "memorizing",
        because,
        sure,
        since=parted_since(facts),
        cause="trained too long for this much data",
        tried="gap",
    )


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
        cause="trained too long for this much data",
        tried="rise",
    )


def underfit(facts: CurveFacts) -> Verdict | None:
    """Hardly anything was learned, or the run ended at full speed."""
    valid = shape(facts)
    if facts.evaluations <= FEWEST or not from_the_start(facts) or not complete(facts):
        return None
    # After a shift of the level nobody sees what had been learned before.
    if training_fitted(facts) or valid.shifted_at is not None:
        return None
    learned = valid.start - min(valid.floor, valid.end)
    # Without a training loss it cannot say that nothing was learned.
    train_fell = 1.0 if facts.train is None else 1 - facts.train.end / (facts.train.start or 1.0)
    if learned < MARGIN * valid.start and train_fell < 2 * MARGIN:
        because = f"{valid_name(facts)} fell by {learned / valid.start:.0%} in the whole run"
        because += (
            "" if facts.train is None else f", {train_name(facts)} by {max(0, train_fell):.0%}"
        )
        return verdict(
            facts,
            "underfit",
            because,
            0.7,
            tried="no progress",
            cause="too low a learning rate, too small a model, or labels that do not fit",
        )
    recent = valid.fall_over(QUARTER)
    if facts.evaluations < SETTLED or recent < 0.2 * learned or recent <= _no_trend(valid):
        return None
    because = f"{valid_name(facts)} fell as fast in the last quarter ({recent:.3g}) as before"
    return verdict(
        facts,
        "underfit",
        because,
        0.7,
        tried="no progress",
        cause="stopped too early, or too low a learning rate",
    )


def learning(facts: CurveFacts) -> Verdict | None:
    """Validation still falls."""
    valid = shape(facts)
    recent, learned = valid.fall_over(QUARTER), valid.start - valid.floor
    # Nothing beside what was learned, beside the level, or beside the noise.
    least = max(MARGIN * learned, 0.01 * valid.end, _no_trend(valid))
    if recent <= least and not (valid.falls_throughout and recent > MARGIN * learned):
        return None
    because = f"{valid_name(facts)} still fell by {recent / valid.end:.1%} over the last quarter"
    fitted = training_fitted(facts)
    tried = "fitted" if fitted else "falling"
    return verdict(
        facts, "learning", because + gap_named(facts), 0.8, since=float(valid.at[0]), tried=tried
    )


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
        return verdict(facts, "inconclusive", because, 0.0, tried="few rows")
    return verdict(facts, "healthy", because + gap_named(facts), 0.7, since=facts.best)


def unclear(facts: CurveFacts) -> Verdict:
    """What is left: the noise is too wide, or the log too short."""
    valid = shape(facts)
    if valid.end > valid.start:
        because = (
            f"{valid_name(facts)} ends above where the log begins, by {valid.rise_share:.1%}, "
            f"which is too little to count; {needed(facts, 1.0)}"
        )
        return verdict(facts, "inconclusive", because, 0.0, tried="few points")
    wide = ENOUGH * valid.noise / valid.floor if valid.floor > 0 else math.inf
    because = (
        f"{valid_name(facts)} jumps by about {wide:.0%}, so its direction cannot be told; "
        f"{needed(facts, wide / MARGIN)}"
    )
    return verdict(facts, "inconclusive", because, 0.0, tried="noise")
