"""Taking a snapshot: the same rows, the same code, each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from holdfast.core.records import Ints, Snapshot, mean_loss
from holdfast.models.fresh import same_memory
from holdfast.training.machine.sharding import is_sharded, summed
from holdfast.training.task import Measured, WrittenMeasurements, measured_fields, of_whole_rows

if TYPE_CHECKING:
    from holdfast.training.run import Run
    from holdfast.training.task import Examples

NOTHING = WrittenMeasurements({"train": {}, "valid": {}}, {})
NOT_MEASURED = Measured(np.zeros(0), {}, float("nan"), 1.0)


def take_snapshot(run: Run) -> Snapshot:
    """Measure the train probe and the validation rows, and how far the weights have moved."""
    now = run.learning_tensors()
    if not run.guard.snapshots:
        # Copies of the weights are the largest thing beside the model, so one serves both.
        run.start = run.previous = now = same_memory(now, run.job.pretrained)
    snapshot = look_at(run, now)
    run.previous, run.gradient_norms = now, []
    return snapshot


def look_at(run: Run, now: Mapping[str, torch.Tensor], train: bool = True) -> Snapshot:
    """What the present weights, of which ``now`` is a copy, give; without ``train`` on the
    validation rows alone. Nothing of the run is changed."""
    probe = measure(run, run.job.train, run.probe) if train else NOT_MEASURED
    valid = judged(run)
    run.observer.forget()
    general = _general(run)
    written = run.job.write(run.network) if run.job.write else NOTHING
    probe = replace(probe, metrics={**probe.metrics, **written.metrics["train"]})
    valid = replace(valid, metrics={**valid.metrics, **written.metrics["valid"]})
    weights = run.learning_parameters()

    def total(values: Sequence[float]) -> Sequence[float]:
        """Sums over this process's parts of the weights as those over the weights."""
        return summed(run.job.accelerator, values) if is_sharded(run.network) else values

    moved, distance = (
        moved_share(weights, now, before, total) for before in (run.previous, run.start)
    )
    norms = run.gradient_norms
    return Snapshot(
        step=run.step,
        epoch=round(run.epoch, 6),
        examples_seen=run.examples_seen,
        phase=run.phase.name if run.step else "start",
        **measured_fields(probe, valid),
        learning_rate=run.learning_rate,
        gradient_norm=float(np.mean(norms)) if norms else None,
        relative_update=moved if run.step else None,
        distance=distance,
        seconds=run.seconds,
        general_loss=None if general is None else mean_loss(general.losses, general.tokens),
        general_losses=None if general is None else general.losses,
        outputs=written.shares or None,
        # Where a run takes more steps than it was to take, what earlier looks saw stays as it was.
        planned_steps=run.plan.steps if run.adjustments.more_steps else None,
        branch=run.guard.branch,
        general_tokens=None if general is None else general.tokens,
    )


def judged(run: Run) -> Measured:
    """The validation rows: through the present model, or as the folds' networks answered them."""
    valid, folds = run.job.valid, run.job.out_of_fold
    if folds is None:
        return measure(run, valid, np.arange(len(valid)))
    return folds.measured(run.step, run.job.task, valid)


def _general(run: Run) -> Measured | None:
    """The general probe, where there is one; its rows whole, however many examples they are."""
    examples = run.job.general
    if examples is None:
        return None
    seen = measure(run, examples, np.arange(len(examples)))
    if seen.tokens is None:
        return seen
    losses, tokens = of_whole_rows(seen.losses, seen.tokens, np.asarray(examples.rows))
    return replace(seen, losses=losses, tokens=tokens)


def measure(run: Run, examples: Examples, positions: Ints) -> Measured:
    """These rows through the present model in evaluation mode, to numbers."""
    losses, kept = run.observer.measure(run.network, examples, positions)
    return run.job.task.measure(losses, kept, examples, positions)


def moved_share(
    names: Iterable[str],
    now: Mapping[str, torch.Tensor],
    before: Mapping[str, torch.Tensor],
    total: Callable[[Sequence[float]], Sequence[float]] = lambda values: values,
) -> float:
    """‖now − before‖ ÷ ‖before‖ over the tensors of these names; 0 when there are none. ``total``
    adds squares up over processes that hold a part each."""
    names = list(names)
    difference = sum(float((now[n] - before[n]).norm()) ** 2 for n in names)
    size = sum(float(before[n].norm()) ** 2 for n in names)
    difference, size = total([difference, size])
    return float(np.sqrt(difference / size)) if size else 0.0
