"""Which checkpoint of another's trainer is kept, and which of its figures hold for the model.

The guard compares *calibrated* losses, those after each checkpoint's best temperature, but the
model that it hands back is the user's own: no temperature is in it. So whatever names a calibrated
loss says so, and gives the loss of the model as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.control.choice import lowest_calibrated, reason
from holdfast.core.records import Decision, Snapshot

NOT_IN_FORCE = (
    "the guard leaves the trainer's model as it is and does not divide its logits. The validation "
    "scores are those of {whose} as it is; a calibrated (refined) loss is one after temperature "
    "scaling, by which checkpoints are compared"
)


def kept_checkpoint(
    history: Sequence[Snapshot], best_step: int, choose: Any, *, restored: bool
) -> Decision:
    """The checkpoint that the run ends with, and why, with its figures and those of the last
    evaluation and of the lowest losses."""
    place = next(i for i, look in enumerate(history) if look.step == best_step)
    chosen = f"step {best_step} of {history[-1].step}"
    if not restored:
        chosen += "; the guard only observes, and the weights are those that the trainer leaves"
    if choose is lowest_calibrated:
        return Decision("best checkpoint", chosen, reason(history, place))
    return Decision("best checkpoint", chosen, "the rule that was given, Guard(choose=…)")


def calibration(best: Snapshot, *, restored: bool) -> dict[str, Any] | None:
    """What temperature scaling would do to the best checkpoint on its validation rows; ``None``
    for a model without logits of classes. ``restored``: whether the model that is left is it."""
    if best.valid_logits is None or not best.valid_losses.size or not np.isfinite(best.temperature):
        return None
    return {
        "in_saved_model": False,
        "temperature": float(best.temperature),
        "loss": float(best.valid_loss),
        "calibrated_loss": float(best.refined_loss),
        "because": NOT_IN_FORCE.format(whose=_whose(best, restored)),
    }


def calibration_decision(best: Snapshot, *, restored: bool) -> Decision | None:
    """The same in words, for the report."""
    found = calibration(best, restored=restored)
    if found is None:
        return None
    chosen = (
        f"not in the saved model; the validation loss of {_whose(best, restored)} is "
        f"{found['loss']:.4g}, and with its logits divided by {found['temperature']:.3g} it would "
        f"be {found['calibrated_loss']:.4g}"
    )
    return Decision("temperature", chosen, found["because"])


def _whose(best: Snapshot, restored: bool) -> str:
    if restored:
        return "the model"
    return f"the checkpoint of step {best.step}, which the guard does not restore,"
