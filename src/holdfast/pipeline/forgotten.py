"""What a run forgot, by its general probe: ``probes.forgetting`` of ``result.json``."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.stats.paired import Difference, paired_bootstrap
from holdfast.training.loop import Trained


def forgetting_block(trained: Trained, seed: int) -> dict[str, Any] | None:
    """The mean loss on the probe's rows before the first step and in the state that is kept, and
    the rise with a paired interval over the rows; ``None`` without a probe."""
    first = trained.history[0].general_losses
    look = trained.average or next(s for s in trained.history if s.step == trained.best_step)
    kept = look.general_losses
    if first is None or kept is None:
        return None
    rise = _estimate(kept, first, seed)
    return {
        "n": len(first),
        "before": _estimate(first, np.zeros(len(first)), seed).to_json(),
        "after": _estimate(kept, np.zeros(len(kept)), seed).to_json(),
        "rise": rise.to_json(),
        "at_step": trained.best_step,
    }


def _estimate(one: Floats, other: Floats, seed: int) -> Estimate:
    found: Difference = paired_bootstrap(one, other, seed=generator(seed, "general probe"))
    if not np.isfinite(found.value):
        return Estimate(None, why="a loss on the general probe is not a finite number")
    return Estimate(found.value, found.low, found.high)
