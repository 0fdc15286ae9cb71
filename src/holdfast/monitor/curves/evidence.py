"""Every number that the rules for curves read, as evidence."""

from __future__ import annotations

import math

from holdfast.core.curves import position
from holdfast.core.records import Evidence
from holdfast.monitor.curves.facts import QUARTER, CurveFacts
from holdfast.monitor.curves.gap import gap_at_best, gap_at_end


def evidence_of(facts: CurveFacts) -> tuple[Evidence, ...]:
    """Every number that the rules read, whichever of them decided."""
    curves, valid, train = facts.curves, facts.valid, facts.train
    last = position(curves.last)
    listed = [Evidence("finite_evaluations", float(facts.evaluations))]
    if valid is not None:
        low, wide = position(float(valid.at[valid.low])), 2 * valid.noise
        listed += [
            _item("valid_lowest", valid.floor, low),
            _item("valid_end", valid.end, last, wide),
            _item("valid_rise_since_lowest", valid.rise, last, wide),
            _item("valid_rise_as_share_of_lowest", valid.rise_share, last),
            _item("valid_rise_as_share_of_what_was_learned", valid.given_back, last),
            _item("valid_rise_that_noise_may_show", valid.doubt, None),
            _item("valid_rise_come_back_from_before", valid.recovered, None),
            _item("valid_fall_over_last_quarter", valid.fall_over(QUARTER), last, wide),
        ]
    if train is not None:
        listed += [_item("train_start", train.start, position(float(train.at[0])))]
        listed += [_item("train_end", train.end, last, 2 * train.noise)]
    optional = {
        "train_change_since_valid_lowest": facts.train_change,
        "train_as_share_of_valid": facts.level_ratio,
        "valid_metric_gain_since_valid_lowest": facts.metric_change,
        "metric_gap_train_less_valid": facts.metric_gap,
    }
    listed += [_item(name, value, last) for name, value in optional.items() if value is not None]
    # 1 where both losses come from the same code in evaluation mode, 0 for a running mean.
    if train is not None:
        listed.append(Evidence("train_measured_in_evaluation_mode", float(curves.clean)))
    if facts.rescaled is not None:
        listed.append(
            _item("losses_rescaled_by", facts.rescaled.factor, position(facts.rescaled.at))
        )
    return (*listed, *_gaps(facts, last))


def _gaps(facts: CurveFacts, last: float | None) -> list[Evidence]:
    """The gap of the metric at the last evaluation and at the best, as shares of 1."""
    end, best = gap_at_end(facts), gap_at_best(facts)
    named = (("gap_of_the_metric", end, last), ("gap_at_the_best_evaluation", best, facts.best))
    found = [
        Evidence(name, gap.value, gap.low, gap.high, position(at))
        for name, gap, at in named
        if gap is not None
    ]
    if found and facts.curves.valid_rows is not None:
        found.append(Evidence("validation_rows", float(facts.curves.valid_rows)))
    return found


def _item(name: str, value: float, at: float | None, wide: float | None = None) -> Evidence:
    known = value if math.isfinite(value) else None
    if known is None or wide is None:
        return Evidence(name, known, at_step=at)
    return Evidence(name, known, known - wide, known + wide, at)
