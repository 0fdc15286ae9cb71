"""The only place that applies actions to a run: a function each, found by the action's class.

Those that change a setting change ``run.adjustments``, which a restore point holds: that is how a
rollback undoes them. ``HalveBatch`` is about this machine's memory, and no rollback brings more.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.core.actions import (
    Extend,
    Freeze,
    HalveBatch,
    ScaleLearningRate,
    SetDropout,
    SetWeightDecay,
    Unfreeze,
)
from holdfast.core.errors import RunError
from holdfast.training.adjust import adjust, all_learning
from holdfast.training.memory import can_halve, free_memory, pieces
from holdfast.training.plan import Phase, steps_for

if TYPE_CHECKING:
    from holdfast.training.run import Run


def appliers(run: Run) -> Mapping[type[Any], Callable[[Any], None]]:
    """Each class of action that changes a run of the loop, to what applies one to ``run``."""

    def of(change: Callable[[Run, Any], None]) -> Callable[[Any], None]:
        return lambda action: change(run, action)

    return {
        ScaleLearningRate: of(_scale_rate),
        SetWeightDecay: of(_set_decay),
        SetDropout: of(_set_dropout),
        Freeze: of(_freeze),
        Unfreeze: of(_unfreeze),
        Extend: of(_extend),
        HalveBatch: of(_halve),
    }


def _scale_rate(run: Run, action: ScaleLearningRate) -> None:
    adjust(run, replace(run.adjustments, rate=run.adjustments.rate * action.factor))


def _set_decay(run: Run, action: SetWeightDecay) -> None:
    adjust(run, replace(run.adjustments, weight_decay=action.weight_decay))


def _set_dropout(run: Run, action: SetDropout) -> None:
    if not run.dropouts:
        raise _impossible(
            "SetDropout", "none of the network's dropouts is on", None, "Set model.dropout first."
        )
    adjust(run, replace(run.adjustments, dropout=action.dropout))


def _freeze(run: Run, action: Freeze) -> None:
    frozen = {*run.adjustments.frozen, *_named(run, action.layers)}
    for phase in _phases_to_come(run):
        if _learnt_in(run, phase) <= frozen:
            rule = f"nothing would be left to learn in the phase {phase.name!r}"
            raise _impossible("Freeze", rule, action.layers, "Name fewer.")
    adjust(run, replace(run.adjustments, frozen=tuple(sorted(frozen))))


def _phases_to_come(run: Run) -> tuple[Phase, ...]:
    """Those that take a step yet; at the end of the run the last, which may be extended."""
    phases = run.plan.phases[run.phase_index :]
    if len(phases) > 1 and run.step_in_phase >= phases[0].steps:
        phases = phases[1:]
    return phases or run.plan.phases[-1:]


def _learnt_in(run: Run, phase: Phase) -> set[str]:
    """The names of what this phase learns: a phase may leave the head alone."""
    with all_learning(run):
        groups = run.job.groups(run.network, phase)
    inside = {id(parameter) for group in groups for parameter in group["params"]}
    return {name for name, p in run.learning_parameters().items() if id(p) in inside}


def _unfreeze(run: Run, action: Unfreeze) -> None:
    named = _named(run, action.layers)
    left = tuple(name for name in run.adjustments.frozen if name not in named)
    if left == run.adjustments.frozen:
        raise _impossible(
            "Unfreeze", "no action has frozen these", action.layers, "What never learned stays so."
        )
    adjust(run, replace(run.adjustments, frozen=left))


def _extend(run: Run, action: Extend) -> None:
    rows, per_step = len(run.job.train), run.plan.phases[-1].rows_per_step
    steps = action.steps or steps_for(float(action.epochs or 0), rows, per_step)
    adjust(run, replace(run.adjustments, more_steps=run.adjustments.more_steps + steps))


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


def _named(run: Run, patterns: tuple[str, ...]) -> set[str]:
    """The parameters that learn and that a layer's or their own name matches."""
    layers = run.network.layers() if hasattr(run.network, "layers") else ()
    inside = {
        id(parameter)
        for layer in layers
        if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
        for parameter in layer.parameters()
    }
    found = {
        name
        for name, parameter in run.learning_parameters().items()
        if id(parameter) in inside or any(fnmatch.fnmatchcase(name, p) for p in patterns)
    }
    if not found:
        names = ", ".join(layer.name for layer in layers)
        raise _impossible(
            "Freeze", "no layer that learns is named so", patterns, f"Layers: {names}"
        )
    return found


def _impossible(action: str, rule: str, value: object, remedy: str) -> RunError:
    return RunError(f"the action {action}", f"cannot be applied: {rule}", value, remedy)
