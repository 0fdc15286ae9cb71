"""A learning-rate range test: the rate increases from update to update (1506.01186).

Rows differ more from one another than a few updates change any of them. So the loss of each
update's rows is compared with their loss before the first update, under the same dropout: the
difference is the effect of the updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from holdfast.core.errors import MachineError, TrainingError
from holdfast.core.seeds import derive_seed
from holdfast.models.compute.prefix import train_mode
from holdfast.training.act import start_phase
from holdfast.training.guard import begin_run
from holdfast.training.restore import random_state, set_random_state
from holdfast.training.run import Job, Run
from holdfast.training.step import draw_of_step, loss_of, train_step


@dataclass(frozen=True, slots=True)
class SweepStep:
    """One update of a sweep: its ``learning_rate``, the mean ``loss`` of the next rows in nats, and
    the ``initial_loss`` of the same rows before the first update."""

    learning_rate: float
    loss: float
    initial_loss: float


class SweepSchedule:
    """The schedule of a sweep, without evaluations and checkpoints: the rates in their order, as
    factors of ``top``."""

    def __init__(self, rates: Sequence[float], top: float) -> None:
        self._scales = [rate / top for rate in rates]

    def scale(self, step: int) -> float:
        return self._scales[min(step, len(self._scales) - 1)]


def sweep(
    job: Job,
    phase: int,
    learning_rates: Sequence[float],
    is_enough: Callable[[Sequence[SweepStep]], bool],
) -> tuple[SweepStep, ...]:
    """Run updates of the job's ``phase`` (its index in the plan), one at each of
    ``learning_rates``, only on training rows, until ``is_enough`` returns true or a loss is not
    finite; that loss is then the last one.

    The run begins as usual: the first evaluation and the initial head. The network is changed; the
    random generators are restored.
    """
    if job.accelerator.num_processes > 1:
        rule = "runs only in one process, since it takes a hundred updates"
        raise MachineError(
            "the sweep", rule, job.accelerator.num_processes, "Start it in one process."
        )
    random_before = random_state()
    try:
        run = begin_run(job)
        run.emit("run_start")
        run.guard.evaluate()
        run.emit("snapshot_taken")
        run.phase_index = phase
        start_phase(run)
        run.emit("phase_start")
        run.schedule = SweepSchedule(learning_rates, run.phase.learning_rate)
        steps = _run_sweep(run, learning_rates, is_enough)
        run.emit("run_end")
        return steps
    finally:
        set_random_state(random_before)


def _run_sweep(
    run: Run, learning_rates: Sequence[float], is_enough: Callable[[Sequence[SweepStep]], bool]
) -> tuple[SweepStep, ...]:
    train_mode(run.network)
    initial_losses = [_loss_at(run, step) for step in range(1, len(learning_rates) + 1)]
    steps: list[SweepStep] = []
    for step, learning_rate in enumerate(learning_rates):
        run.step_in_phase = step
        _seed(run, step)
        try:
            train_step(run, draw_of_step(run))
            loss = _loss_at(run, step + 1)
        except TrainingError:
            # The loss is not finite; the rate before it was the last usable one.
            break
        steps.append(SweepStep(learning_rate, loss, initial_losses[step]))
        if is_enough(steps):
            break
    return tuple(steps)


def _loss_at(run: Run, step: int) -> float:
    """The loss of the rows of this update, at any update of the run."""
    run.step_in_phase = step
    _seed(run, step)
    return loss_of(run, draw_of_step(run))


def _seed(run: Run, step: int) -> None:
    """Set the seed: the dropout of an update depends only on its position."""
    torch.manual_seed(derive_seed(run.plan.seed, "sweep", step))
