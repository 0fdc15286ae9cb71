"""Rules for curves: the validation loss has risen since its lowest."""

from __future__ import annotations

from holdfast.core.records import Label, Verdict
from holdfast.monitor import curve_remedies as remedies
from holdfast.monitor.curve_facts import CurveFacts
from holdfast.monitor.curve_shape import ENOUGH, Shape
from holdfast.monitor.curve_words import (
    GIVEN_BACK,
    MARGIN,
    METRIC_GAP,
    needed,
    place,
    shape,
    sureness,
    train_name,
    valid_name,
    verdict,
)


def counts(shape: Shape, margin: float = MARGIN, given_back: float = GIVEN_BACK) -> bool:
    """Whether a rise is large enough to matter: against the level reached, or half of that against
    it and a good part of what had been learned (a loss that hardly fell has little to give back).
    """
    if shape.rise_share > margin:
        return True
    return shape.rise_share > margin / 2 and shape.given_back > given_back


def risen(facts: CurveFacts) -> Verdict | None:
    """A rise that counts and is more than noise."""
    valid = shape(facts)
    if not counts(valid) or not valid.beyond_doubt:
        return None
    change = facts.train_change
    grown = (
        f"{valid_name(facts)} is {valid.rise_share:.0%} above its lowest at "
        f"{place(facts, float(valid.at[valid.best]))}"
    )
    sure = sureness(facts, valid)
    if change is not None and change > MARGIN and facts.train and facts.train.beyond_doubt:
        return verdict(
            facts, "diverging", f"{grown}, and {train_name(facts)} rose by {change:.0%} too", sure,
            since=valid.since, cause="the learning rate is too high",
            remedies=remedies.for_diverging(),
        )  # fmt: skip
    label, also = _kind_of_rise(facts)
    meanwhile = "the log has no training loss" if change is None else _meanwhile(facts, change)
    confidence = label == "miscalibrated"
    return verdict(
        facts, label, f"{grown}, while {meanwhile}{also}", sure, since=valid.since,
        cause="too confident, not less knowing" if confidence else
        "trained too long for this much data",
        remedies=(remedies.for_confidence if confidence else remedies.for_rise)(facts.curves),
    )  # fmt: skip


def _kind_of_rise(facts: CurveFacts) -> tuple[Label, str]:
    """Which of the three names a rising validation loss deserves, by the metrics."""
    gain, gap, unit = facts.metric_change, facts.metric_gap, facts.unit
    if gain is None or facts.metric is None:
        return "overfit", ""
    name = facts.curves.valid_metric.name if facts.curves.valid_metric else "the metric"
    slack = max(unit, ENOUGH * facts.metric.noise)
    if gain < -slack:
        return "overfit", f"; {name} fell by {-gain / unit:.1f} points"
    if gap is not None and gap > METRIC_GAP * unit:
        return "overfit", f"; {name} is {gap / unit:.0f} points better on the training rows"
    ratio = facts.level_ratio
    if gap is None and gain <= slack and ratio is not None and ratio < 0.1:
        return "memorizing", f" to {ratio:.0%} of it; {name} no longer gains"
    return "miscalibrated", f"; {name} holds ({gain / unit:+.1f} points)"


def _meanwhile(facts: CurveFacts, change: float) -> str:
    if change < -0.01:
        return f"{train_name(facts)} fell by {-change:.0%}"
    return f"{train_name(facts)} stayed ({change:+.0%})"


def perhaps_risen(facts: CurveFacts) -> Verdict | None:
    """A rise that counts but may be noise."""
    valid = shape(facts)
    if not counts(valid):
        return None
    because = (
        f"{valid_name(facts)} ends {valid.rise_share:.0%} above its lowest, but noise may show "
        f"{valid.doubt / valid.floor:.0%}; {needed(facts, valid.doubt / valid.rise)}"
    )
    return verdict(facts, "inconclusive", because, 0.0, remedies=remedies.for_noise())
