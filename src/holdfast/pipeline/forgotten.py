"""What a run forgot, by its loss on general rows: ``probes.forgetting`` of ``result.json``."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.monitor import limits
from holdfast.monitor.evidence import general_rows
from holdfast.stats.paired import Difference, paired_bootstrap
from holdfast.training.loop import Trained

SAID = {
    "forgot": "It forgot some of what it knew before",
    "a little": "It forgot a little of what it knew before",
    "not shown": "That it forgot anything is not shown",
}


def forgetting_block(trained: Trained, seed: int) -> dict[str, Any] | None:
    """The loss on the general probe before the first step and in the state that is kept; ``None``
    without a probe."""
    first = general_rows(trained.history[0])
    look = trained.average or next(s for s in trained.history if s.step == trained.best_step)
    kept = general_rows(look)
    if first is None or kept is None:
        return None
    return {**rise_block(first, kept, seed, "general rows"), "at_step": trained.best_step}


def rise_block(before: Floats, after: Floats, seed: int, what: str) -> dict[str, Any]:
    """The rise of the mean loss from ``before`` to ``after`` [n], the same rows in the same order,
    with a paired interval over them. ``verdict``: *forgot* where the verdict on a run would call it
    so, *a little* where the whole interval is above 0, else *not shown*."""
    nothing = np.zeros(len(after))
    start, now = _estimate(before, nothing, seed), _estimate(after, nothing, seed)
    rise = _estimate(after, before, seed)
    block: dict[str, Any] = {
        "n": len(after),
        "before": start.to_json(),
        "after": now.to_json(),
        "rise": rise.to_json(),
    }
    if rise.value is None or rise.low is None or rise.high is None or start.value is None:
        return block
    large = rise.value > max(limits.MARGIN, limits.FORGOTTEN * abs(start.value))
    verdict = "not shown" if not rise.low > 0 else "forgot" if large else "a little"
    because = (
        f"{SAID[verdict]}: on {len(after)} {what} the loss went from {start.value:.3f} to "
        f"{now.value:.3f} (95 % interval of the difference {rise.low:+.3f} to {rise.high:+.3f})."
    )
    return {**block, "forgot": verdict == "forgot", "verdict": verdict, "because": because}


def _estimate(one: Floats, other: Floats, seed: int) -> Estimate:
    found: Difference = paired_bootstrap(one, other, seed=generator(seed, "general probe"))
    if not np.isfinite(found.value):
        return Estimate(None, why="a loss on the general probe is not a finite number")
    return Estimate(found.value, found.low, found.high)
