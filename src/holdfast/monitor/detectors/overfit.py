"""Overfitting: validation is worse than at its best, while the training rows are not.

The test is of the loss after the best temperature, where logits are at hand: confidence that grows
alone is ``miscalibrated``. It is valid under the choice of the best on the same rows and under
all looks of the run.
"""

from __future__ import annotations

from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.remedies import for_overfit
from holdfast.monitor.sign import Sign, item, shown, sure

TOO_LONG = "trained too long for this much data"


def overfit(case: Case) -> Sign | None:
    """``overfit`` since the look after the best.

    Its own cause is time: strong where most of the run lies beyond the best step, weak where the
    best was just now, so that few rows or a large model may explain it better.
    """
    if not case.enough or not is_rising(case) or case.probe_since_best.low > 0:
        return None
    beyond = 1 - case.best_step / max(1, case.now)
    kept = "still improved" if case.probe_since_best.high < 0 else "did not get worse"
    name = "valid_refined_loss" if case.refined else "valid_loss"
    return Sign(
        because=f"{case.loss_name} is {case.rise.value:.3f} above its best at step "
        f"{case.best_step} (p = {case.rise.p_value:.3g}) while the train probe {kept}",
        strength=sure(1 - case.rise.p_value), label="overfit", cause=TOO_LONG,
        blame=min(0.9, beyond), since_step=case.steps[case.best + 1],
        evidence=(
            shown(f"{name}_above_best", case.above_best, case.now),
            item("p_value_above_best", case.rise.p_value, step=case.now),
            shown("train_probe_change_since_best", case.probe_since_best, case.now),
            item("share_of_the_run_beyond_the_best", beyond, step=case.best_step),
        ),
        remedies=for_overfit(case.history, case.best),
    )  # fmt: skip


def is_rising(case: Case) -> bool:
    """Whether the test over this run's looks has raised its alarm, and validation is still above
    its best, beyond chance and by more than a trifle."""
    best = float(case.valid.mean(axis=0)[case.best])
    if case.above_best.low <= 0 or case.rise.value < limits.TRIVIAL_SHARE * best:
        return False
    return case.rise.alarm is not None


DETECTORS.add("overfit", overfit)
