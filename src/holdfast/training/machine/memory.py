"""Out of memory in a step: say so, cut the same rows into more pieces, and compute it again."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from holdfast.core.actions import HalveBatch
from holdfast.training.machine.sharding import is_sharded
from holdfast.training.restore import set_random_state

if TYPE_CHECKING:
    from holdfast.training.restore import RandomState
    from holdfast.training.run import Run


def in_less_memory(run: Run, before: RandomState, gradients: Callable[[], float]) -> float:
    """``gradients()``, again in twice as many pieces for as long as memory runs out; ``before`` is
    where the generators are.

    Only the gradients are computed again: optimizer, schedule and counters have not moved, and
    dropout draws from where it did. The gradient of an update does not depend on its pieces, so
    the run goes on as it was meant, but for rounding (and for batch norm's statistics, which see
    smaller batches). More pieces stay for the rest of the run, and for its resume. A step that
    compares rows needs them together, and one row cannot be cut: both raise.
    """
    while True:
        try:
            return gradients()
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error) or not can_halve(run):
                raise
        # Outside of the except clause, where the error no longer holds the step's tensors.
        run.guard.act(_halved(run))
        set_random_state(before)


def lacks_memory(error: Exception) -> bool:
    """Whether it is such an error: PyTorch has a class for GPUs, only a sentence for the
    processor."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(
        phrase in message for phrase in ("out of memory", "not enough memory", "allocate memory")
    )


def pieces(run: Run) -> int:
    """Into how many pieces the rows of an update are cut."""
    return run.phase.accumulate << run.halvings


def can_halve(run: Run) -> bool:
    """Whether an update's rows can be cut into twice as many pieces, by this process alone."""
    if is_sharded(run.network):
        return False
    rows = math.ceil(run.phase.rows_per_step / run.job.accelerator.num_processes)
    return not run.phase.compares_rows and pieces(run) < rows


def free_memory(run: Run) -> None:
    """Let go of what a step has left behind, the gradients with it."""
    if run.optimizer is not None:
        run.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _halved(run: Run) -> HalveBatch:
    count = 2 * pieces(run)
    size = math.ceil(run.phase.rows_per_step / count)
    because = (
        f"memory ran out in step {run.step + 1}: its {run.phase.rows_per_step} rows are computed "
        f"in {count} pieces of {size} from here on; the gradient is the same"
    )
    return HalveBatch(because, size, count)
