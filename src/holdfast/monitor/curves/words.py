"""Sentences, confidence and evidence of the rules for curves."""

from __future__ import annotations

import math

from holdfast.core.curves import logged_position
from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Verdict
from holdfast.core.wording import percent_phrase
from holdfast.monitor.curves.facts import CurveFacts, CurveGap, gap_at_best, gap_at_end
from holdfast.monitor.curves.remedies import in_their_words, remedies_for
from holdfast.monitor.curves.shape import ENOUGH, CurveShape
from holdfast.monitor.symptom import evidence_item

MARGIN = 0.05
GIVEN_BACK = 0.125
FEWEST = 4
SETTLED = 6
MOST_EVALUATIONS = 10  # times as many as there are: above it none are advised
RUNNING = "the running training loss (usually with dropout, while the model changes)"


def rise_confidence(facts: CurveFacts, shape: CurveShape) -> float:
    """The normal probability below the rise, corrected for selecting the lowest, and capped."""
    most = 0.9 if facts.train is not None and facts.evaluations >= SETTLED else 0.8
    if shape.noise <= 0:
        return most
    selection_bias = shape.doubt / shape.noise - ENOUGH
    return min(most, 0.5 * math.erfc(-(shape.rise / shape.noise - selection_bias) / math.sqrt(2)))


def valid_name(facts: CurveFacts) -> str:
    """The validation series as named in a sentence."""
    name = facts.curves.valid.name if facts.curves.valid else ""
    return f"1 − {name}" if facts.valid_is_metric else f"the validation loss ({name})"


def rise_phrase(amount: float, level: float, digits: int = 0) -> str:
    """A rise or fall as a percentage of the ``level`` that it starts from; as it is where that is
    0, as 1 − accuracy can be."""
    return percent_phrase(amount / level, digits) if level > 0 else f"{amount:.3g}"


def smoothed_name(facts: CurveFacts, *, plain: bool = False) -> str:
    """The same, marked as smoothed if the figures are of its running median; with ``plain``, by
    its name in the log."""
    smoothed = facts.valid is not None and facts.valid.window > 1
    name = facts.curves.valid.name if plain and facts.curves.valid else valid_name(facts)
    return f"{name}, smoothed," if smoothed else name


def train_name(facts: CurveFacts) -> str:
    """The training series as named in a sentence, with how it was measured."""
    return "the training loss" if facts.curves.clean else RUNNING


def place(facts: CurveFacts, at: float) -> str:
    """A position with the name of its axis, such as ``epoch 3``."""
    return f"{facts.curves.axis} {logged_position(at):g}"


def count_evaluations(count: int) -> str:
    """A count of evaluations, such as ``3 evaluations``."""
    return "1 evaluation" if count == 1 else f"{count} evaluations"


def evaluations_needed(facts: CurveFacts, times: float) -> str:
    """How many evaluations would reduce the noise by this factor: its square; above ten times as
    many it says that more validation rows are needed instead."""
    if _is_too_noisy(times):
        return (
            f"even {MOST_EVALUATIONS * facts.evaluations} evaluations would not decide it; more "
            "validation rows would"
        )
    evaluations = facts.evaluations * max(1.5, times**2)
    return f"about {math.ceil(evaluations)} evaluations with this noise would decide it"


def noise_finding(times: float) -> str:
    """The finding for noise that must fall by this factor: more evaluations are advised only where
    ``evaluations_needed`` names a number of them."""
    return "few rows" if _is_too_noisy(times) else "noise"


def _is_too_noisy(times: float) -> bool:
    return max(1.5, times**2) > MOST_EVALUATIONS


def gap_words(facts: CurveFacts, gap: CurveGap) -> str:
    """The gap at the last evaluation as a clause, with the gap at the best evaluation."""
    series = facts.curves.valid_metric
    name = series.name if series is not None else "the metric"
    if gap.value is None:
        last = f"{name} is {percent_phrase(gap.valid, 1)} at the last evaluation"
        if gap.least <= gap.valid:
            return f"{last}, and the log has no such metric on the training rows"
        points = f"{100 * (gap.least - gap.valid):.0f} points"
        return (
            f"{last}, and the training loss implies that at least {percent_phrase(gap.least, 1)} "
            f"of the training rows are correct (gap at least {points})"
        )
    assert gap.train is not None
    points = f"{100 * gap.value:.0f} points"
    best = gap_at_best(facts)
    if best is not None and best.value is not None and facts.best != facts.curves.last:
        points += f"; {100 * best.value:.0f} at the best evaluation, {place(facts, facts.best)}"
    return (
        f"at the last evaluation {name} is {percent_phrase(gap.train, 1)} on training rows and "
        f"{percent_phrase(gap.valid, 1)} on validation rows (gap {points})"
    )


def gap_named(facts: CurveFacts) -> str:
    """A wide gap as an addition to another label's sentence; else an empty string."""
    gap = gap_at_end(facts)
    return f"; {gap_words(facts, gap)}" if gap is not None and gap.wide else ""


def shape(facts: CurveFacts) -> CurveShape:
    """The shape of the validation series, which all later rules require."""
    assert facts.valid is not None  # `_too_little` came before
    return facts.valid


def verdict(
    facts: CurveFacts,
    label: Label,
    because: str,
    confidence: float,
    *,
    since: float | None = None,
    cause: str | None = None,
    finding: str | None = None,
) -> Verdict:
    """Make a verdict with all evidence; ``finding`` names the finding whose remedies are given."""
    if facts.rescaled is not None:
        where, factor = place(facts, facts.rescaled.at), facts.rescaled.factor
        because += f" (both losses step by a factor of {factor:.2f} at {where}; this was removed)"
    remedies = () if finding is None else remedies_for(finding, facts.curves)
    return Verdict(
        label,
        f"From the curves only: {because}.",
        confidence,
        logged_position(since),
        cause,
        evidence_of(facts),
        in_their_words(remedies, facts.curves),
    )


def evidence_of(facts: CurveFacts) -> tuple[Evidence, ...]:
    """Every number that the rules read, whichever rule decided."""
    curves, valid, train = facts.curves, facts.valid, facts.train
    last = logged_position(curves.last)
    evidence = [Evidence("finite_evaluations", float(facts.evaluations))]

    def add(name: str, value: float | None, at: float | None, wide: float | None = None) -> None:
        if value is not None and wide is not None:
            evidence.append(evidence_item(name, value, value - wide, value + wide, at))
        elif value is not None:
            evidence.append(evidence_item(name, value, step=at))

    if valid is not None:
        wide = 2 * valid.noise
        add("valid_lowest", valid.floor, logged_position(float(valid.at[valid.low])))
        add("valid_end", valid.end, last, wide)
        add("valid_rise_since_lowest", valid.rise, last, wide)
        if math.isfinite(valid.rise_share):
            add("valid_rise_as_share_of_lowest", valid.rise_share, last)
        add("valid_rise_as_share_of_what_was_learned", valid.given_back, last)
        add("valid_rise_that_noise_may_show", valid.doubt, None)
        add("valid_rise_come_back_from_before", valid.recovered, None)
        add("valid_fall_over_last_quarter", valid.late_fall, last, wide)
    if train is not None:
        add("train_start", train.start, logged_position(float(train.at[0])))
        add("train_end", train.end, last, 2 * train.noise)
    add("train_change_since_valid_lowest", facts.train_change, last)
    add("train_as_share_of_valid", facts.level_ratio, last)
    add("valid_metric_gain_since_valid_lowest", facts.metric_change, last)
    add("metric_gap_train_less_valid", facts.metric_gap, last)
    # 1 where both losses come from the same code in evaluation mode, 0 for a running mean.
    if train is not None:
        add("train_measured_in_evaluation_mode", float(curves.clean), None)
    if facts.rescaled is not None:
        add("losses_rescaled_by", facts.rescaled.factor, logged_position(facts.rescaled.at))
    # The gap of the metric at the last evaluation and at the best one, as shares of 1.
    gaps = (
        ("gap_of_the_metric", gap_at_end(facts), last),
        ("gap_at_the_best_evaluation", gap_at_best(facts), facts.best),
    )
    for name, gap, at in gaps:
        if gap is not None:
            evidence.append(Evidence(name, gap.value, gap.low, gap.high, logged_position(at)))
    if curves.valid_rows is not None and any(gap is not None for _, gap, _ in gaps):
        add("validation_rows", float(curves.valid_rows), None)
    return tuple(evidence)
