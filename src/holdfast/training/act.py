"""The only place that applies actions to a run: one function per action, found by the action's
class. It also makes a run follow its adjustments: plan, optimizer, schedule, dropouts, frozen
parameters, and the listeners of methods that were switched on (``apply_adjustments``).

Actions that change a setting change ``run.adjustments``, which a restore point contains: that is
how a rollback undoes them. ``HalveBatch`` depends on the memory of this machine, so no rollback
undoes it: where a step runs out of memory, the same rows are split into more micro-batches and
computed again (``retry_in_less_memory``).
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
from holdfast.core.events import order_listeners
from holdfast.models.compute.prefix import train_mode
from holdfast.models.layers import restore_initial_head
from holdfast.training.machine.sharding import is_sharded
from holdfast.training.plan import Phase, steps_for
from holdfast.training.restore import Additions, Adjustments, adjusted_plan, set_random_state

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.training.restore import RandomState
    from holdfast.training.run import Run


# Actions that change a setting of the run; ``adjustments_after`` says how.
SETTING_ACTIONS = (
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
    """Each class of action that changes a run of the loop, mapped to the function that applies it
    to ``run``."""

    def change(action: Action) -> None:
        apply_adjustments(run, adjustments_after(run, action))

    return {
        **dict.fromkeys(SETTING_ACTIONS, change),
        ResetHead: partial(_reset_head, run),
        HalveBatch: partial(_halve, run),
    }


def adjustments_after(run: Run, action: Action) -> Adjustments:
    """The run's adjustments after an action.

    Raises ``RunError`` for an action that cannot be applied to this run now.
    """
    adjustments = run.adjustments
    match action:
        case ScaleLearningRate():
            return replace(adjustments, rate=adjustments.rate * action.factor)
        case SetWeightDecay():
            return replace(adjustments, weight_decay=action.weight_decay)
        case SetDropout():
            if not run.dropouts:
                rule = "all dropouts of the network are off"
                raise _cannot_apply("SetDropout", rule, None, "Set model.dropout first.")
            return replace(adjustments, dropout=action.dropout)
        case Freeze():
            return _freeze(run, action)
        case Unfreeze():
            return _unfreeze(run, action)
        case Extend():
            rows, per_step = len(run.job.train), run.plan.phases[-1].rows_per_step
            steps = action.steps or steps_for(float(action.epochs or 0), rows, per_step)
            return replace(adjustments, more_steps=adjustments.more_steps + steps)
        case Shorten():
            return _shorten(run, action)
        case SwitchOn():
            additions = _additions(run, "SwitchOn", action.method)
            settings = additions.complete_settings(
                action.method, action.settings, adjustments.methods
            )
            return replace(adjustments, methods={**adjustments.methods, action.method: settings})
        case StrengthenAugmentation():
            additions = _additions(run, "StrengthenAugmentation", action.notches)
            notches, most = adjustments.augmentation + action.notches, additions.notches
            if notches > most:
                rule = f"augmentation can be at most {most} notches above the recipe's"
                remedy = "Leave the augmentation as it is."
                raise _cannot_apply("StrengthenAugmentation", rule, notches, remedy)
            return replace(adjustments, augmentation=notches)
        case _:
            return replace(adjustments, shuffles=adjustments.shuffles + 1)


def _freeze(run: Run, action: Freeze) -> Adjustments:
    matching = _matching_parameters(run, action.layers, "Freeze", run.trainable_parameters())
    frozen = {*run.adjustments.frozen, *matching}
    for phase in _remaining_phases(run):
        with all_trainable(run):
            groups = run.job.groups(run.network, phase)
        # A phase may train only the head.
        group_ids = {id(parameter) for group in groups for parameter in group["params"]}
        if {name for name, p in run.trainable_parameters().items() if id(p) in group_ids} <= frozen:
            rule = f"no trainable parameter would be left in the phase {phase.name!r}"
            raise _cannot_apply("Freeze", rule, action.layers, "Name fewer layers.")
    return replace(run.adjustments, frozen=tuple(sorted(frozen)))


def _unfreeze(run: Run, action: Unfreeze) -> Adjustments:
    """The adjustments with these layers trainable: layers that an action froze, and layers that
    were never trained and can be."""
    adjustments, matching = (
        run.adjustments,
        _matching_parameters(run, action.layers, "Unfreeze", run.unfreezable_parameters()),
    )
    still_frozen = tuple(name for name in adjustments.frozen if name not in matching)
    newly_trainable = matching - run.trainable_parameters().keys()
    if still_frozen == adjustments.frozen and not newly_trainable:
        rule = "all of these layers are trainable already"
        raise _cannot_apply("Unfreeze", rule, action.layers, "Name layers that are frozen.")
    return replace(
        adjustments,
        frozen=still_frozen,
        thawed=tuple(sorted({*adjustments.thawed, *newly_trainable})),
    )


def _shorten(run: Run, action: Shorten) -> Adjustments:
    steps, earliest = run.plan.steps, max(run.step + 1, run.plan.first_end)
    if not earliest <= action.to_step < steps:
        rule = f"a run at step {run.step} of {steps} cannot end there"
        remedy = f"Name a step from {earliest} to {steps - 1}."
        if earliest >= steps:
            remedy = "The run is about to end."
        raise _cannot_apply("Shorten", rule, action.to_step, remedy)
    adjustments = run.adjustments
    return replace(adjustments, more_steps=adjustments.more_steps - (steps - action.to_step))


def _remaining_phases(run: Run) -> tuple[Phase, ...]:
    """The phases with steps left; at the end of the run the last one, which may be extended."""
    phases = run.plan.phases[run.phase_index :]
    if len(phases) > 1 and run.step_in_phase >= phases[0].steps:
        phases = phases[1:]
    return phases or run.plan.phases[-1:]


def _additions(run: Run, action: str, value: object) -> Additions:
    """The additions that can join a phase that is still to come."""
    additions = run.job.additions
    if additions is None or not any(map(additions.accepts, _remaining_phases(run))):
        rule = "no phase that is still to come accepts it"
        raise _cannot_apply(action, rule, value, "It applies only to fine-tuning.")
    return additions


def _reset_head(run: Run, action: ResetHead) -> None:
    """Reset the trainable weights of the last layer, and drop their optimizer moments."""
    if not restore_initial_head(
        run.network, run.trainable_parameters(), run.initial_tensors, run.optimizer
    ):
        rule = "the last layer is not trainable"
        raise _cannot_apply("ResetHead", rule, None, "Unfreeze it first.")


def _halve(run: Run, action: HalveBatch) -> None:
    if not can_halve(run) or action.accumulate != 2 * micro_batch_count(run):
        raise _cannot_apply(
            "HalveBatch",
            f"an update of {run.phase.rows_per_step} rows in {micro_batch_count(run)} "
            "micro-batches cannot be split further like this",
            action.accumulate,
            "Use twice as many micro-batches; rows that are compared stay together.",
        )
    run.halvings += 1
    free_memory(run)


def _matching_parameters(
    run: Run, patterns: tuple[str, ...], action: str, candidates: Mapping[str, torch.nn.Parameter]
) -> set[str]:
    """The parameters among ``candidates`` whose own name or layer name matches."""
    layers = run.network.layers() if hasattr(run.network, "layers") else ()
    layer_ids = {
        id(parameter)
        for layer in layers
        if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
        for parameter in layer.parameters()
    }
    matching = {
        name
        for name, parameter in candidates.items()
        if id(parameter) in layer_ids or any(fnmatch.fnmatchcase(name, p) for p in patterns)
    }
    if not matching:
        names = ", ".join(layer.name for layer in layers)
        rule = f"no {'trainable' if action == 'Freeze' else 'unfreezable'} layer has this name"
        raise _cannot_apply(action, rule, patterns, f"Layers: {names}")
    return matching


def _cannot_apply(action: str, rule: str, value: object, remedy: str) -> RunError:
    return RunError(f"the action {action}", f"cannot be applied: {rule}", value, remedy)


def apply_adjustments(run: Run, adjustments: Adjustments) -> None:
    """Let the run continue under these adjustments, whatever they were before.

    Raises ``RunError`` where an addition cannot join; nothing is changed then.
    """
    plan, before = adjusted_plan(run.job.plan, adjustments, run.job.additions), run.adjustments
    _switch_listeners(run, adjustments)
    run.adjustments, run.plan = adjustments, plan
    if (adjustments.methods, adjustments.shuffles) != (before.methods, before.shuffles):
        # The pool keeps an epoch as its source has drawn it.
        run.pool = None
    for module, name, rate in run.dropouts:
        setattr(module, name, rate if adjustments.dropout is None else adjustments.dropout)
    run.thaw(adjustments.thawed)
    if run.optimizer is not None:
        _update_optimizer(run, regroup=adjustments.thawed != before.thawed)
    for name, parameter in run.trainable_parameters().items():
        parameter.requires_grad_(name not in run.adjustments.frozen)
        if name in run.adjustments.frozen:
            # An optimizer skips parameters without a gradient, including their weight decay.
            parameter.grad = None
    if run.network.training:
        # Frozen layers at the front of a network use no dropout; a resumed run begins like this.
        train_mode(run.network)


def _switch_listeners(run: Run, adjustments: Adjustments) -> None:
    """Update the listeners of the methods that are switched on: those with unchanged settings stay;
    others leave as at the end of a run, or join as at its beginning."""

    def emit(event: str, listeners: Sequence[Listener]) -> None:
        for one in order_listeners(listeners):
            getattr(one, event, lambda _: None)(run)

    methods_before, additions = run.adjustments.methods, run.job.additions
    removed = [
        name
        for name in run.switched_listeners
        if adjustments.methods.get(name) != methods_before.get(name)
    ]
    added = {
        name: tuple(additions.listeners(name, settings))
        for name, settings in adjustments.methods.items()
        if additions is not None and (name in removed or name not in run.switched_listeners)
    }
    leaving = [one for name in removed for one in run.switched_listeners.pop(name)]
    run.switched_listeners.update(added)
    run.register_listeners()
    emit("run_end", leaving)
    joining = [one for made_now in added.values() for one in made_now]
    emit("run_start", joining)
    if run.optimizer is not None:
        emit("phase_start", joining)


def _update_optimizer(run: Run, regroup: bool) -> None:
    """Set the learning rates and weight decays of the current phase in the optimizer, whose state
    stays, and the schedule of its length. With ``regroup`` the optimizer's parameters change
    too."""
    assert run.optimizer is not None
    if regroup:
        optimizer_state, schedule = run.optimizer.state, run.schedule.state_dict()
        start_phase(run)
        run.schedule.load_state_dict(schedule)
        for group in run.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in optimizer_state:
                    run.optimizer.state[parameter] = optimizer_state[parameter]
        return
    with all_trainable(run):
        new_groups = run.job.groups(run.network, run.phase)
    for group, new_group in zip(run.optimizer.param_groups, new_groups, strict=True):
        group["base_lr"], group["weight_decay"] = new_group["lr"], new_group["weight_decay"]
    phase, state = run.phase, run.schedule.state_dict()
    run.schedule = run.job.schedule(phase.schedule, phase.steps, phase.warmup_steps)
    run.schedule.load_state_dict(state)


@contextlib.contextmanager
def all_trainable(run: Run) -> Iterator[None]:
    """A block in which no action's freezing applies: an optimizer's groups contain the trainable
    parameters, and those of a resumed run must equal those of the uninterrupted run."""
    learning = [(p, p.requires_grad) for p in run.trainable_parameters().values()]
    for parameter, _ in learning:
        parameter.requires_grad_(True)
    yield
    # Restore each flag: a method may freeze layers too, and uses the flag to know their turn.
    for parameter, learns in learning:
        parameter.requires_grad_(learns)


def start_phase(run: Run) -> None:
    """Create the optimizer and the schedule of the current phase."""
    phase = run.phase
    with all_trainable(run):
        groups = run.job.groups(run.network, phase)
        for group in groups:
            group["base_lr"] = group["lr"]
        run.optimizer = run.job.optimizer(phase.optimizer, groups)
    run.schedule = run.job.schedule(phase.schedule, phase.steps, phase.warmup_steps)


def retry_in_less_memory(
    run: Run, random_before: RandomState, compute_gradients: Callable[[], float]
) -> float:
    """Call ``compute_gradients``, and again with twice as many micro-batches for as long as memory
    runs out; ``random_before`` is the state of the random generators.

    Only the gradients are computed again: optimizer, schedule and counters have not moved, and
    dropout draws from the same state. The gradient of an update does not depend on its
    micro-batches, so the run continues as planned, except for rounding (and for the statistics of
    batch norms, which see smaller batches). The higher number holds for the rest of the run, also
    after a resume. A step that compares rows needs them together, and one row cannot be split: both
    raise.
    """
    while True:
        try:
            return compute_gradients()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not can_halve(run):
                raise
        # Outside the except clause, where the error no longer holds the step's tensors.
        run.guard.act(_halve_action(run))
        set_random_state(random_before)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is an out-of-memory error: PyTorch has a class for GPUs, but only a message
    for the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(
        phrase in message for phrase in ("out of memory", "not enough memory", "allocate memory")
    )


def micro_batch_count(run: Run) -> int:
    """The number of micro-batches of an update."""
    return run.phase.accumulate << run.halvings


def can_halve(run: Run) -> bool:
    """Whether an update's rows can be split into twice as many micro-batches, in one process."""
    if is_sharded(run.network):
        return False
    rows = math.ceil(run.phase.rows_per_step / run.job.accelerator.num_processes)
    return not run.phase.compares_rows and micro_batch_count(run) < rows


def free_memory(run: Run) -> None:
    """Free what a step has left behind, including the gradients."""
    if run.optimizer is not None:
        run.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _halve_action(run: Run) -> HalveBatch:
    count = 2 * micro_batch_count(run)
    size = math.ceil(run.phase.rows_per_step / count)
    because = (
        f"memory ran out in step {run.step + 1}: from here on its {run.phase.rows_per_step} rows "
        f"are computed in {count} micro-batches of {size}; the gradient is the same"
    )
    return HalveBatch(because, size, count)
