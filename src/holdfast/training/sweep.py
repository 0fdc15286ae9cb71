"""A sweep of the learning rate: the rate rises from update to update (1506.01186).

Rows differ more from one another than a few updates change any of them. So the loss of each
update's rows is compared with what the same rows lost before the first update, under the same
dropout: what is left of the difference is what the updates did.
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
    """One update of a sweep: its ``learning_rate``, the mean ``loss`` of the rows that came next,
    in nats, and what the same rows lost at the ``initial_loss``."""

    learning_rate: float
    loss: float
    initial_loss: float


class SweepSchedule:
    """The schedule of a sweep, which no look and no checkpoint asks: the rates in their order, as
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
    """Updates of the job's ``phase`` (its place in the plan), one at each of ``learning_rates``, on
    training rows alone, until ``is_enough`` says so or a loss is not finite, with which it ends.

    The run begins as it would: the first look, the head that it begins with. The network is
    changed; the generators are put back.
    """
    if job.accelerator.num_processes > 1:
        rule = "runs in one process: a sweep takes a hundred updates"
        raise MachineError("the sweep", rule, job.accelerator.num_processes, "Start it alone.")
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
            # A loss that is not finite; the rate before it was the last that could be taken.
            break
        steps.append(SweepStep(learning_rate, loss, initial_losses[step]))
        if is_enough(steps):
            break
    return tuple(steps)


def _loss_at(run: Run, step: int) -> float:
    """The loss of the rows of this update, whatever update the run is at."""
    run.step_in_phase = step
    _seed(run, step)
    return loss_of(run, draw_of_step(run))


def _seed(run: Run, step: int) -> None:
    """The dropout of an update depends on its place alone."""
    torch.manual_seed(derive_seed(run.plan.seed, "sweep", step))
