"""Miscalibration: confidence overfits before knowledge does.

Raw cross-entropy is knowing plus being as sure as one should be (2501.19195). On small data the
second part goes wrong first, and a rising raw loss is the commonest false alarm of early stopping.
"""

from __future__ import annotations

import numpy as np

from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.overfit import is_rising
from holdfast.monitor.remedies import for_miscalibrated
from holdfast.monitor.sign import Sign, item, shown, sure
from holdfast.stats.paired import Difference
from holdfast.stats.student import paired_t

CAUSE = "confidence grew without knowledge: the answers are surer than they are right"


def miscalibrated(case: Case) -> Sign | None:
    """``miscalibrated`` where the raw loss is significantly above its best by more than the
    margin, the refined loss is not, and the metric is not significantly below that at the raw
    best. Needs the logits of every snapshot."""
    if not case.enough or not case.refined:
        return None
    rise = case.raw_rise
    if rise.alarm is None or not rise.low > 0 or rise.value <= case.margin or is_rising(case):
        return None
    metric = _metric_change(case)
    if metric is not None and metric.high < 0:
        return None
    temperature = float(case.history[-1].temperature)
    raw = case.gap(case.raw, -1, case.raw_best)
    return Sign(
        because=f"the raw validation loss is {rise.value:.3f} above its best at step "
        f"{case.steps[case.raw_best]}, but after the best temperature ({temperature:.2f}) it is "
        f"{max(0.0, case.rise.value):.3f} above its own best and the metric holds",
        strength=sure(1 - rise.p_value), label="miscalibrated", cause=CAUSE,
        blame=0.5, since_step=case.steps[case.raw_best + 1],
        evidence=(
            shown("valid_loss_above_best", raw, case.now),
            item("p_value_valid_loss_above_best", rise.p_value, step=case.now),
            shown("valid_refined_loss_above_best", case.above_best, case.now),
            item("best_temperature", temperature, step=case.now),
            *((shown("valid_accuracy_change", metric, case.now),) if metric else ()),
        ),
        remedies=for_miscalibrated(),
    )  # fmt: skip


def _metric_change(case: Case) -> Difference | None:
    """Accuracy now less that at the raw best, row by row."""
    if case.valid_hits is None:
        return None
    hits = case.valid_hits.astype(np.float64)
    return paired_t(hits[:, -1], hits[:, case.raw_best])


DETECTORS.add("miscalibrated", miscalibrated)
