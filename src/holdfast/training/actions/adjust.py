"""A run made to follow its adjustments: plan, optimizer, schedule, dropouts, what is frozen, the
listeners of methods that were switched on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from holdfast.core.events import in_order
from holdfast.models.compute.prefix import train_mode
from holdfast.training.actions.adjustments import Adjustments, plan_of
from holdfast.training.step import begin_phase

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.training.run import Run


def adjust(run: Run, made: Adjustments) -> None:
    """Let the run go on under these adjustments, whatever it was under before.

    Raises ``RunError`` where what they add cannot join it; nothing is changed then.
    """
    plan, before = plan_of(run.job.plan, made, run.job.additions), run.adjustments
    _switch(run, made)
    run.adjustments, run.plan = made, plan
    if (made.methods, made.shuffles) != (before.methods, before.shuffles):
        # It keeps an epoch as its source has drawn it.
        run.pool = None
    for module, name, rate in run.dropouts:
        setattr(module, name, rate if made.dropout is None else made.dropout)
    run.thaw(made.thawed)
    if run.optimizer is not None:
        _follow(run, regroup=made.thawed != before.thawed)
    for name, parameter in run.learning_parameters().items():
        parameter.requires_grad_(name not in run.adjustments.frozen)
        if name in run.adjustments.frozen:
            # An optimizer passes over what has no gradient, its weight decay included.
            parameter.grad = None
    if run.network.training:
        # What is frozen at the front of a network draws no dropout; a resumed run begins so.
        train_mode(run.network)


def _switch(run: Run, made: Adjustments) -> None:
    """The listeners of the methods that are switched on: those that go on with the settings they
    have stay; the others leave as at the end of a run, or join as at its beginning."""
    on = run.adjustments.methods
    gone = [name for name in run.switched if made.methods.get(name) != on.get(name)]
    new = {
        name: tuple(run.job.additions.listeners(name, settings))
        for name, settings in made.methods.items()
        if name in gone or name not in run.switched
    }
    left = [one for name in gone for one in run.switched.pop(name)]
    run.switched.update(new)
    run.hear()
    _tell(run, "run_end", left)
    joined = [one for made_now in new.values() for one in made_now]
    _tell(run, "run_start", joined)
    if run.optimizer is not None:
        _tell(run, "phase_start", joined)


def _tell(run: Run, event: str, listeners: Sequence[Listener]) -> None:
    for one in in_order(listeners):
        getattr(one, event, lambda _: None)(run)


def _follow(run: Run, regroup: bool) -> None:
    """Rates and decays of the present phase in the optimizer, whose own state stays, and the
    schedule of its length; with ``regroup`` the optimizer has other parameters too."""
    assert run.optimizer is not None
    if regroup:
        kept, schedule = run.optimizer.state, run.schedule.state_dict()
        start_phase(run)
        run.schedule.load_state_dict(schedule)
        for group in run.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in kept:
                    run.optimizer.state[parameter] = kept[parameter]
        return
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
    learning = [(p, p.requires_grad) for p in run.learning_parameters().values()]
    for parameter, _ in learning:
        parameter.requires_grad_(True)
    yield
    # As it was: a method may hold back layers too, and knows by it when their turn comes.
    for parameter, learns in learning:
        parameter.requires_grad_(learns)


def start_phase(run: Run) -> None:
    """Make the optimizer and the schedule of the present phase."""
    with all_learning(run):
        begin_phase(run)
