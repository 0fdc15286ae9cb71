"""A run made to follow its adjustments: plan, optimizer, schedule, dropouts, what is frozen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from holdfast.models.prefix import train_mode
from holdfast.training.adjustments import Adjustments, plan_of
from holdfast.training.step import begin_phase

if TYPE_CHECKING:
    from holdfast.training.run import Run


def adjust(run: Run, made: Adjustments) -> None:
    """Let the run go on under these adjustments, whatever it was under before."""
    run.adjustments, run.plan = made, plan_of(run.job.plan, made)
    for module, name, rate in run.dropouts:
        setattr(module, name, rate if made.dropout is None else made.dropout)
    if run.optimizer is not None:
        _follow(run)
    _freeze(run)
    if run.network.training:
        # What is frozen at the front of a network draws no dropout; a resumed run begins so.
        train_mode(run.network)


def _follow(run: Run) -> None:
    """Rates and decays of the present phase in the optimizer, whose own state stays, and the
    schedule of its length."""
    assert run.optimizer is not None
    with all_learning(run):
        wanted = run.job.groups(run.network, run.phase)
    for group, now in zip(run.optimizer.param_groups, wanted, strict=True):
        group["base_lr"], group["weight_decay"] = now["lr"], now["weight_decay"]
    phase, state = run.phase, run.schedule.state_dict()
    run.schedule = run.job.schedule(phase.schedule, phase.steps, phase.warmup_steps)
    run.schedule.load_state_dict(state)


@contextlib.contextmanager
def all_learning(run: Run) -> Iterator[None]:
    """A block in which nothing is frozen by an action: an optimizer's groups are made of what
    learns, and those of a resumed run must be those of the run that was not killed."""
    for parameter in run.learning_parameters().values():
        parameter.requires_grad_(True)
    yield
    _freeze(run)


def _freeze(run: Run) -> None:
    for name, parameter in run.learning_parameters().items():
        parameter.requires_grad_(name not in run.adjustments.frozen)
        if name in run.adjustments.frozen:
            # An optimizer passes over what has no gradient, its weight decay included.
            parameter.grad = None


def start_phase(run: Run) -> None:
    """Make the optimizer and the schedule of the present phase."""
    with all_learning(run):
        begin_phase(run)
