"""The only place that applies actions to a run: a function each, found by the action's class; and a
run made to follow its adjustments: plan, optimizer, schedule, dropouts, what is frozen, the
listeners of methods that were switched on (``adjust``).

Actions that change a setting change ``run.adjustments``, which a restore point holds: that is how a
rollback undoes them. ``HalveBatch`` is about this machine's memory, and no rollback brings more:
where a step runs out of it, the same rows are cut into more pieces and computed again
(``in_less_memory``).
"""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from holdfast.core.actions import (
    Action,
    Extend,
    Freeze,
    HalveBatch,
    ResetHead,
    Reshuffle,
    ScaleLearningRate,
    SetDropout,
    SetWeightDecay,
    Shorten,
    StrengthenAugmentation,
    SwitchOn,
    Unfreeze,
)
from holdfast.core.errors import RunError
from holdfast.core.events import in_order
from holdfast.models.compute.prefix import train_mode
from holdfast.models.layers import reset_head
from holdfast.training.machine.sharding import is_sharded
from holdfast.training.plan import Phase, steps_for
from holdfast.training.restore import Additions, Adjustments, plan_of, set_random_state

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.training.restore import RandomState
    from holdfast.training.run import Run


# What changes a setting of the run: ``adjusted`` says how.
SETTINGS = (
    ScaleLearningRate,
    SetWeightDecay,
    SetDropout,
    Freeze,
    Unfreeze,
    Extend,
    Shorten,
    SwitchOn,
    StrengthenAugmentation,
    Reshuffle,
)


def appliers(run: Run) -> Mapping[type[Any], Callable[[Any], None]]:
    """Each class of action that changes a run of the loop, to what applies one to ``run``."""

    def change(action: Action) -> None:
        adjust(run, adjusted(run, action))

    return {
        **dict.fromkeys(SETTINGS, change),
        ResetHead: partial(_reset_head, run),
        HalveBatch: partial(_halve, run),
    }


def adjusted(run: Run, action: Action) -> Adjustments:
    """The run's adjustments with what an action changes.

    Raises ``RunError`` for one that cannot be applied to this run now.
    """
    made = run.adjustments
    match action:
        case ScaleLearningRate():
            return replace(made, rate=made.rate * action.factor)
        case SetWeightDecay():
            return replace(made, weight_decay=action.weight_decay)
        case SetDropout():
            if not run.dropouts:
                rule = "none of the network's dropouts is on"
                raise _impossible("SetDropout", rule, None, "Set model.dropout first.")
            return replace(made, dropout=action.dropout)
        case Freeze():
            return _frozen(run, action)
        case Unfreeze():
            return _unfrozen(run, action)
        case Extend():
            rows, per_step = len(run.job.train), run.plan.phases[-1].rows_per_step
            steps = action.steps or steps_for(float(action.epochs or 0), rows, per_step)
            return replace(made, more_steps=made.more_steps + steps)
        case Shorten():
            return _shorter(run, action)
        case SwitchOn():
            additions = _additions(run, "SwitchOn", action.method)
            settings = additions.settled(action.method, action.settings, made.methods)
            return replace(made, methods={**made.methods, action.method: settings})
        case StrengthenAugmentation():
            additions = _additions(run, "StrengthenAugmentation", action.notches)
            wanted, most = made.augmentation + action.notches, additions.notches
            if wanted > most:
                rule = f"these rows can be enriched by {most} notches more than the recipe says"
                remedy = "Leave them as they are."
                raise _impossible("StrengthenAugmentation", f"{rule}, no further", wanted, remedy)
            return replace(made, augmentation=wanted)
        case _:
            return replace(made, shuffles=made.shuffles + 1)


def _frozen(run: Run, action: Freeze) -> Adjustments:
    named = _named(run, action.layers, "Freeze", run.learning_parameters())
    frozen = {*run.adjustments.frozen, *named}
    for phase in _phases_to_come(run):
        with all_learning(run):
            groups = run.job.groups(run.network, phase)
        # A phase may leave the head alone.
        inside = {id(parameter) for group in groups for parameter in group["params"]}
        if {name for name, p in run.learning_parameters().items() if id(p) in inside} <= frozen:
            rule = f"nothing would be left to learn in the phase {phase.name!r}"
            raise _impossible("Freeze", rule, action.layers, "Name fewer.")
    return replace(run.adjustments, frozen=tuple(sorted(frozen)))


def _unfrozen(run: Run, action: Unfreeze) -> Adjustments:
    """With the layers that an action has frozen, and those that never learned and may."""
    made, named = run.adjustments, _named(run, action.layers, "Unfreeze", run.may_learn())
    left = tuple(name for name in made.frozen if name not in named)
    new = named - run.learning_parameters().keys()
    if left == made.frozen and not new:
        rule = "all of these learn already"
        raise _impossible("Unfreeze", rule, action.layers, "Name layers that are frozen.")
    return replace(made, frozen=left, thawed=tuple(sorted({*made.thawed, *new})))


def _shorter(run: Run, action: Shorten) -> Adjustments:
    steps, before = run.plan.steps, sum(phase.steps for phase in run.plan.phases[:-1])
    least = max(run.step, before) + 1
    if not least <= action.to_step < steps:
        rule = f"a run at step {run.step} of {steps} cannot end there"
        remedy = f"Name a step from {least} to {steps - 1}."
        if least >= steps:
            remedy = "It is about to end."
        raise _impossible("Shorten", rule, action.to_step, remedy)
    made = run.adjustments
    return replace(made, more_steps=made.more_steps - (steps - action.to_step))


def _phases_to_come(run: Run) -> tuple[Phase, ...]:
    """Those that take a step yet; at the end of the run the last, which may be extended."""
    phases = run.plan.phases[run.phase_index :]
    if len(phases) > 1 and run.step_in_phase >= phases[0].steps:
        phases = phases[1:]
    return phases or run.plan.phases[-1:]


def _additions(run: Run, action: str, value: object) -> Additions:
    """What can join a phase that is still to come."""
    additions = run.job.additions
    if additions is None or not any(map(additions.takes, _phases_to_come(run))):
        rule = "no phase that is still to come takes it"
        raise _impossible(action, rule, value, "It is for the fine-tuning.")
    return additions


def _reset_head(run: Run, action: ResetHead) -> None:
    """Weights that are not learned stay; the moments of those that are go."""
    if not reset_head(run.network, run.learning_parameters(), run.start, run.optimizer):
        rule = "the last layer does not learn"
        raise _impossible("ResetHead", rule, None, "Unfreeze it.")


def _halve(run: Run, action: HalveBatch) -> None:
    if not can_halve(run) or action.accumulate != 2 * pieces(run):
        raise _impossible(
            "HalveBatch",
            f"an update of {run.phase.rows_per_step} rows in {pieces(run)} pieces cannot be cut so",
            action.accumulate,
            "Name twice as many pieces; rows that are compared stay together.",
        )
    run.halvings += 1
    free_memory(run)


def _named(
    run: Run, patterns: tuple[str, ...], action: str, among: Mapping[str, torch.nn.Parameter]
) -> set[str]:
    """Those ``among`` the parameters that a layer's or their own name matches."""
    layers = run.network.layers() if hasattr(run.network, "layers") else ()
    inside = {
        id(parameter)
        for layer in layers
        if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
        for parameter in layer.parameters()
    }
    found = {
        name
        for name, parameter in among.items()
        if id(parameter) in inside or any(fnmatch.fnmatchcase(name, p) for p in patterns)
    }
    if not found:
        names = ", ".join(layer.name for layer in layers)
        rule = f"no layer that {'learns' if action == 'Freeze' else 'may learn'} is named so"
        raise _impossible(action, rule, patterns, f"Layers: {names}")
    return found


def _impossible(action: str, rule: str, value: object, remedy: str) -> RunError:
    return RunError(f"the action {action}", f"cannot be applied: {rule}", value, remedy)


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

    def tell(event: str, listeners: Sequence[Listener]) -> None:
        for one in in_order(listeners):
            getattr(one, event, lambda _: None)(run)

    on, additions = run.adjustments.methods, run.job.additions
    gone = [name for name in run.switched if made.methods.get(name) != on.get(name)]
    new = {
        name: tuple(additions.listeners(name, settings))
        for name, settings in made.methods.items()
        if additions is not None and (name in gone or name not in run.switched)
    }
    left = [one for name in gone for one in run.switched.pop(name)]
    run.switched.update(new)
    run.hear()
    tell("run_end", left)
    joined = [one for made_now in new.values() for one in made_now]
    tell("run_start", joined)
    if run.optimizer is not None:
        tell("phase_start", joined)


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
    phase = run.phase
    with all_learning(run):
        groups = run.job.groups(run.network, phase)
        for group in groups:
            group["base_lr"] = group["lr"]
        run.optimizer = run.job.optimizer(phase.optimizer, groups)
    run.schedule = run.job.schedule(phase.schedule, phase.steps, phase.warmup_steps)


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
