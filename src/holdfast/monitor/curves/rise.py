"""Rules for curves: the validation loss has risen above its lowest value."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.curves import PERCENT_ABOVE
from holdfast.core.labels import Label
from holdfast.core.records import Verdict
from holdfast.core.wording import percent_phrase, signed
from holdfast.monitor.curves.facts import NO_SHARE, CurveFacts, gap_at_end, is_share
from holdfast.monitor.curves.shape import ENOUGH, RECOVERED, CurveShape
from holdfast.monitor.curves.words import (
    FEWEST,
    GIVEN_BACK,
    MARGIN,
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
    verdict,
)
from holdfast.monitor.evidence import Harm
from holdfast.monitor.limits import GAP
from holdfast.monitor.symptom import OVERCONFIDENT, TOO_LONG

ROWS = 4.5  # validation rows that must have become wrong: five
HALF = 0.5  # of what was learned is lost again: harm by the loss only


def counts(shape: CurveShape) -> bool:
    """Whether a rise is large enough to matter: relative to the level reached; or by half of that
    share where a good part of what was learned is lost (a loss that hardly fell can lose little).
    """
    halfway = shape.rise_share > MARGIN / 2 and shape.given_back > GIVEN_BACK
    return shape.rise_share > MARGIN or halfway


def matters(facts: CurveFacts) -> bool:
    """``counts``; and where a metric stands in for the loss, a rise of at least a point and of five
    rows where their number is known (of four rows that change at random, all get worse once in
    16)."""
    valid, series = shape(facts), facts.curves.valid
    if not facts.valid_is_metric or series is None or series.finite.values.min() < 0:
        return counts(valid)
    return counts(valid) and valid.rise > _point(facts) * _least_points(facts)


def _least_points(facts: CurveFacts) -> float:
    """Points of the metric below which the predictions do not count as worse."""
    rows = facts.curves.valid_rows
    return max(1.0, 100 * ROWS / rows) if rows else 1.0


def risen(facts: CurveFacts) -> Verdict | None:
    """A rise that is large enough and exceeds the noise, in a log that is long enough."""
    if facts.valid is None or len(facts.valid.cost) < FEWEST:
        return None
    valid = facts.valid
    if not matters(facts) or not valid.beyond_doubt:
        return None
    change = facts.train_change
    rise_words = _rise_words(facts)
    confidence = rise_confidence(facts, valid)
    if change is not None and change > MARGIN and facts.train and facts.train.beyond_doubt:
        return verdict(
            facts,
            "diverging",
            f"{rise_words}, and {train_name(facts)} rose by {percent_phrase(change)}",
            confidence,
            since=valid.since,
            cause="the learning rate is too high",
            finding="diverging",
        )
    if _both(facts):
        because = f"{rise_words}, and {train_name(facts)} rose by {percent_phrase(change or 0)}"
        return verdict(facts, "inconclusive", because, 0.0, finding="restarts")
    meanwhile = "the log has no training loss"
    if change is not None:
        moved = (
            f"fell by {percent_phrase(-change)}"
            if change < -0.01
            else f"hardly changed ({signed(100 * change, '+.0f')} %)"
        )
        meanwhile = f"{train_name(facts)} {moved}"
    label, words, worse = _harm(facts)
    because = f"{rise_words}, while {meanwhile}; {words}"
    if facts.valid_is_metric and change is None:
        because = rise_words + gap_named(facts)
    if label == "inconclusive":
        return replace(verdict(facts, label, because, 0.0, finding="unknown gap"), harm=worse)
    cause, finding = TOO_LONG, "rise"
    if label == "miscalibrated":
        cause, finding = OVERCONFIDENT, "confidence"
    rise_verdict = verdict(
        facts, label, because, confidence, since=valid.since, cause=cause, finding=finding
    )
    return replace(rise_verdict, harm=worse)


def _rise_words(facts: CurveFacts) -> str:
    """How far the validation series is from its best value, and where that was."""
    side = "below its highest" if facts.valid_is_metric else "above its lowest"
    name = smoothed_name(facts, plain=facts.valid_is_metric)
    amount, best = _amount(facts, shape(facts).rise), place(facts, facts.best)
    return f"{name} is {amount} {side} value (at {best})"


def _amount(facts: CurveFacts, rise: float) -> str:
    """A rise of the loss as a share of its lowest value; of a metric that stands in for it, the
    fall in points or in the metric's own unit."""
    if not facts.valid_is_metric:
        return rise_phrase(rise, shape(facts).floor)
    series = facts.curves.valid
    has_points = is_share(series) and series is not None and not NO_SHARE.search(series.name)
    return f"{rise / _point(facts):.1f} points" if has_points else f"{rise:.3g}"


def _point(facts: CurveFacts) -> float:
    """One point of the metric that stands in for the loss, as it is logged."""
    assert facts.curves.valid is not None
    return 0.01 if facts.curves.valid.finite.values.max() <= PERCENT_ABOVE else 1.0


def _both(facts: CurveFacts) -> bool:
    """Whether the training loss rose by half as much: then it is not overfitting, and too little
    for a divergence."""
    if facts.train is None or facts.train_change is None or not facts.curves.comparable:
        return False
    valid = shape(facts)
    then = facts.train.value_at(float(valid.at[valid.low]))
    return facts.train.end - then > max(HALF * valid.rise, ENOUGH * facts.train.noise)


def _harm(facts: CurveFacts) -> tuple[Label, str, Harm | None]:
    """Whether a rising loss is overfitting, overconfidence only, or open; the reason; and what got
    worse. Decided by the predictions, else by the gap of the metric, else by how much of what was
    learned is lost."""
    if facts.valid_is_metric:
        return "overfit", "the predictions got worse", "answers"
    if facts.metric is None:
        untold = (
            "the log has no metric, so it cannot show whether predictions or only their "
            "probabilities got worse"
        )
        return "overfit", untold, None
    gap, answers = gap_at_end(facts), _answers(facts)
    known = "" if gap is None else f"; {gap_words(facts, gap)}"
    if answers < 0:
        fell = f"{_metric(facts)} fell by {-answers:.1f} points, so both the predictions and "
        return "overfit", f"{fell}their probabilities got worse{known}", "both"
    held = answers <= _slack(facts) / facts.unit
    change = signed((facts.metric_change or 0.0) / facts.unit)
    moved = f"hardly changed ({change} points)" if held else f"rose by {answers:.1f} points"
    holds = f"{_metric(facts)} {moved}, so only the probabilities got worse"
    words = f"{holds}{known}"
    # The metric held: overfit with a wide gap, overconfident with a narrow one, else by the loss.
    if gap is not None and gap.wide:
        counts = f"since the gap is significantly above {100 * GAP:.0f} points, it is overfitting"
        return "overfit", f"{words}; {counts}", "certainty"
    if gap is not None and gap.narrow:
        return "miscalibrated", words, "certainty"
    back = shape(facts).given_back
    open_gap = f"it is not known whether the gap is above {100 * GAP:.0f} points"
    lost = "all" if back >= 1 else percent_phrase(back)
    if back > HALF:
        words = f"{words}; {open_gap}, but {lost} of the earlier decrease of the loss is undone"
        return "overfit", words, "certainty"
    words = f"{words}; {open_gap}, and only {lost} of its earlier decrease is undone"
    return "inconclusive", words, "certainty"


def _answers(facts: CurveFacts) -> float:
    """Points that the metric gained since the loss was lowest; 0 or more where it held."""
    gain = facts.metric_change or 0.0
    return gain / facts.unit if gain < -_slack(facts) else max(0.0, gain / facts.unit)


def _slack(facts: CurveFacts) -> float:
    """A change of the metric up to which it held, in its own unit."""
    assert facts.metric is not None
    return max(facts.unit * _least_points(facts), ENOUGH * facts.metric.noise)


def _metric(facts: CurveFacts) -> str:
    return facts.curves.valid_metric.name if facts.curves.valid_metric else "the metric"


def perhaps_risen(facts: CurveFacts) -> Verdict | None:
    """A rise that is large enough, but may be noise or may reverse as earlier ones did."""
    valid = shape(facts)
    if not matters(facts):
        return None
    grown = _rise_words(facts)
    if valid.comes_back and valid.rise > valid.doubt:
        because = (
            f"{grown}, but it recovered from a {'fall' if facts.valid_is_metric else 'rise'} of "
            f"{_amount(facts, valid.recovered)} before, as with a learning rate that restarts; one "
            f"{RECOVERED:g} times as large, or the end of the cycle, would decide"
        )
        return verdict(facts, "inconclusive", because, 0.0, finding="restarts")
    times = valid.doubt / valid.rise
    because = (
        f"{grown}, but noise may cause {_amount(facts, valid.doubt)}; "
        f"{evaluations_needed(facts, times)}"
    )
    return verdict(facts, "inconclusive", because, 0.0, finding=noise_finding(times))
