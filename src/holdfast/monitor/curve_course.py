"""Rules for curves that have not risen: at the floor, underfit, learning, healthy, unclear."""

from __future__ import annotations

import math

from holdfast.core.records import Verdict
from holdfast.monitor import curve_remedies as remedies
from holdfast.monitor.curve_facts import QUARTER, CurveFacts
from holdfast.monitor.curve_shape import ENOUGH
from holdfast.monitor.curve_words import (
    FEWEST,
    GIVEN_BACK,
    MARGIN,
    SETTLED,
    complete,
    from_the_start,
    needed,
    place,
    shape,
    train_name,
    valid_name,
    verdict,
)


def at_the_floor(facts: CurveFacts) -> Verdict | None:
    """Training at its floor, validation long stopped and far from right."""
    valid, train, ratio = shape(facts), facts.train, facts.level_ratio
    if train is None or ratio is None or facts.evaluations < SETTLED:
        return None
    wrong = facts.metric.end / facts.unit if facts.metric else 100 * valid.end / valid.start
    follows = valid.fall_over(0.5) > 0.01 * (valid.start - valid.floor)
    if ratio > 0.02 or train.end > 0.02 * train.start or follows or wrong < 5:
        return None
    because = (
        f"{train_name(facts)} is at its floor ({ratio:.1%} of {valid_name(facts)}), which has not "
        "fallen over the second half"
    )
    return verdict(
        facts, "memorizing", because, 0.6, since=float(valid.at[valid.best]),
        cause="trained too long for this much data", remedies=remedies.for_rise(facts.curves),
    )  # fmt: skip


def underfit(facts: CurveFacts) -> Verdict | None:
    """Hardly anything was learned, or the run ended at full speed."""
    valid, curves = shape(facts), facts.curves
    if facts.evaluations <= FEWEST or not from_the_start(facts) or not complete(facts):
        return None
    learned = valid.start - min(valid.floor, valid.end)
    train_fell = 1.0 if facts.train is None else 1 - facts.train.end / (facts.train.start or 1.0)
    if learned < MARGIN * valid.start and train_fell < 2 * MARGIN:
        because = f"{valid_name(facts)} fell by {learned / valid.start:.0%} in the whole run"
        because += (
            "" if facts.train is None else f", {train_name(facts)} by {max(0, train_fell):.0%}"
        )
        return verdict(
            facts, "underfit", because, 0.7, remedies=remedies.for_no_progress(curves),
            cause="too low a learning rate, too small a model, or labels that do not fit",
        )  # fmt: skip
    recent = valid.fall_over(QUARTER)
    if facts.evaluations < SETTLED or recent < 0.2 * learned or recent <= ENOUGH * valid.noise:
        return None
    because = f"{valid_name(facts)} fell as fast in the last quarter ({recent:.3g}) as before"
    return verdict(
        facts, "underfit", because, 0.7, remedies=remedies.for_no_progress(curves),
        cause="stopped too early, or too low a learning rate",
    )  # fmt: skip


def learning(facts: CurveFacts) -> Verdict | None:
    """Validation still falls."""
    valid = shape(facts)
    recent, learned = valid.fall_over(QUARTER), valid.start - valid.floor
    least = max(MARGIN * learned, 0.01 * valid.end, ENOUGH * valid.noise)
    if recent <= least and not (valid.falls_throughout and recent > MARGIN * learned):
        return None
    because = f"{valid_name(facts)} still fell by {recent / valid.end:.1%} over the last quarter"
    return verdict(
        facts, "learning", because, 0.8, since=float(valid.at[0]),
        remedies=remedies.for_falling(facts.curves),
    )  # fmt: skip


def healthy(facts: CurveFacts) -> Verdict | None:
    """Validation is flat, and its noise is narrow enough to say so."""
    valid = shape(facts)
    small = max(MARGIN * valid.floor, GIVEN_BACK * (valid.start - valid.floor))
    if ENOUGH * valid.noise > small or valid.end > valid.start:
        return None
    because = (
        f"{valid_name(facts)} has stopped falling and ends {valid.rise_share:.1%} above its lowest"
        f" at {place(facts, float(valid.at[valid.best]))}"
    )
    return verdict(facts, "healthy", because, 0.7, since=float(valid.at[valid.best]))


def unclear(facts: CurveFacts) -> Verdict:
    """What is left: the noise is too wide, or the log too short."""
    valid = shape(facts)
    if valid.end > valid.start:
        because = (
            f"{valid_name(facts)} ends above where the log begins, by {valid.rise_share:.1%}, "
            f"which is too little to count; {needed(facts, 1.0)}"
        )
        return verdict(facts, "inconclusive", because, 0.0, remedies=remedies.for_few_points())
    wide = ENOUGH * valid.noise / valid.floor if valid.floor > 0 else math.inf
    because = (
        f"{valid_name(facts)} jumps by about {wide:.0%}, so its direction cannot be told; "
        f"{needed(facts, wide / MARGIN)}"
    )
    return verdict(facts, "inconclusive", because, 0.0, remedies=remedies.for_noise())
