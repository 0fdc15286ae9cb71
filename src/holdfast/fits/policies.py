"""Who decides in a fit: the policy that ``control.policy`` names, and what it may do."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.contract.fit import TrainingPlan
from holdfast.control.choice import Choose
from holdfast.control.controller import Controller, RunCourse
from holdfast.control.ladder import Ladder
from holdfast.control.policy import Policy
from holdfast.control.sight import Can
from holdfast.control.stop_rules import Costs, StoppingRule, planned_learning
from holdfast.core.actions import ACTIONS, Continue, HalveBatch
from holdfast.core.errors import RecipeError
from holdfast.core.tasks import OF_PICTURES
from holdfast.fits.additions import FitAdditions
from holdfast.fits.checkpoint_rule import criterion, planned_rates
from holdfast.methods.optimizers import ends_low
from holdfast.plan.defaults import PASSIVE
from holdfast.training.run import dropouts_of

SETTING = "control.policy"
# What is about this machine's memory, and what does nothing, are no choices of a policy.
NO_CHOICE = (HalveBatch.__name__, Continue.__name__)
# Findings whose rows are why validation tells nothing.
LEAKS = ("leak", "copies", "duplicates", "giveaway", "target_is_source")


def stopping_rule(ready: TrainingPlan, *, waits: bool = True) -> StoppingRule:
    """When the policy ``stop`` ends the run; without ``waits`` never for want of further gain."""
    wanted, first = ready.recipe.control, ready.plan.phases[0]
    # Such a phase moves the features for the head that follows; it is short, and 18 validation
    # rows of a hundred labelled ones are too few to cut it shorter.
    start = first.steps if first.head == "refit" else 0
    learning = planned_learning(ready.plan.evaluate_at, planned_rates(ready.plan.phases))
    costs = Costs(wanted.worth, wanted.chance) if waits else None
    return StoppingRule(learning, costs, ready.recipe.train.patience, criterion(ready), start)


def controller(ready: TrainingPlan, choose: Choose, additions: FitAdditions) -> Controller | None:
    """The advisor of a policy that acts; ``None`` for one that does not."""
    if ready.recipe.control.policy in PASSIVE:
        return None
    return Controller(
        load_policy(ready.recipe.control.policy),
        stopping_rule(ready),
        stopping_rule(ready, waits=False),
        choose,
        course_of(ready, additions),
    )


def course_of(ready: TrainingPlan, additions: FitAdditions) -> RunCourse:
    """What a policy is told of this fit before its first step."""
    last = ready.plan.phases[-1]
    return RunCourse(
        looks=ready.plan.evaluate_at,
        can=what_it_can(ready, additions),
        rate=last.learning_rate,
        usual=ready.usual_rates,
        skew=_skew(ready),
        findings=tuple(_leaking_rows(ready)),
        epoch=math.ceil(len(ready.train) / last.rows_per_step),
        limit=ready.recipe.train.max_steps,
    )


def what_it_can(ready: TrainingPlan, additions: FitAdditions) -> Can:
    """The actions that this fit can take; those of the fine-tuning only where it has one."""
    names = [name for name in ACTIONS if name not in NO_CHOICE]
    tuned = any(additions.takes(phase) for phase in ready.plan.phases)
    methods, notches = (additions.possible, additions.notches) if tuned else ({}, 0)
    network = ready.loaded.network
    may = [p for p in network.parameters() if p.is_floating_point()]
    learns = {
        layer.name: any(p.requires_grad for p in layer.parameters()) for layer in network.layers()
    }
    can_not = [] if methods else ["SwitchOn"]
    can_not += [] if notches else ["StrengthenAugmentation"]
    can_not += [] if dropouts_of(network) else ["SetDropout"]
    return Can(
        actions=tuple(name for name in names if name not in can_not),
        methods=methods,
        notches=notches,
        frozen=network.adapter is None and not all(p.requires_grad for p in may),
        pictures=ready.recipe.task in OF_PICTURES,
        layers=tuple(name for name, learning in learns.items() if learning and name != "head"),
        falls=ends_low(ready.plan.phases[-1].schedule),
    )


def _skew(ready: TrainingPlan) -> float | None:
    labels = getattr(ready.train, "labels", None)
    if not ready.classes or labels is None:
        return None
    sizes = np.bincount(np.asarray(labels))
    return float(sizes.max() / max(1, sizes[sizes > 0].min()))


def _leaking_rows(ready: TrainingPlan) -> list[str]:
    found = (*ready.prepared.findings, *ready.findings)
    return [
        f"{one.check.replace('_', ' ')}: rows {', '.join(map(str, one.rows[:20]))}"
        + ("…." if len(one.rows) > 20 else ".")
        for one in found
        if one.rows and any(word in one.check for word in LEAKS)
    ]


def load_policy(spec: str) -> Policy:
    """The policy of this name: ``adapt``, or a class of the user's, ``file.py:Name``.

    Raises ``RecipeError`` where there is none, where its file fails on import, and where what it
    names is no policy. Its code runs in the process of the training, with the rights of whoever
    started it.
    """
    if spec == Ladder.name:
        return Ladder()
    path, _, name = spec.rpartition(".py:")
    module = _module(Path(path + ".py"), spec)
    made = getattr(module, name, None)
    if not isinstance(made, type):
        known = sorted(
            k
            for k, v in vars(module).items()
            # Not what it has imported.
            if isinstance(v, type) and k[0] != "_" and v.__module__ == module.__name__
        )
        remedy = f"It defines: {', '.join(known) or 'none'}."
        raise RecipeError(SETTING, f"names a class that {path}.py does not define", name, remedy)
    try:
        policy = made()
    except Exception as error:
        rule = f"cannot be made without arguments: {type(error).__name__}: {error}"
        raise RecipeError(SETTING, rule, name, "Give every setting a default.") from error
    if not isinstance(policy, Policy):
        raise RecipeError(
            SETTING, "is no policy: it has no method decide(sight)", name, "See docs/guard.md."
        )
    return policy


def _module(path: Path, spec: str) -> Any:
    if not path.is_file():
        remedy = "Give the policy as path.py:Class; a relative path starts at the current folder."
        raise RecipeError(SETTING, "names a file that is not there", str(path), remedy)
    # Under a name of its own and not in ``sys.modules``: a user's file may be called like a
    # library.
    found = importlib.util.spec_from_file_location(f"holdfast_policy_{path.stem}", path)
    if found is None or found.loader is None:
        raise RecipeError(SETTING, "names a file that Python cannot import", spec)
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        rule = f"names a file that fails on import: {type(error).__name__}: {error}"
        raise RecipeError(SETTING, rule, spec, "Mend it, or set control.policy=adapt.") from error
    return module
