"""Who decides in a fit: which checkpoint it keeps, and in words why; when it stops; and the policy
that ``control.policy`` names, with what it may do."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdfast.contract.fit import TrainingPlan
from holdfast.control.choice import (
    Choose,
    last,
    lowest,
    lowest_calibrated,
    newest_unless_worse,
    explain_choice,
)
from holdfast.control.controller import Controller, ControlledPlan
from holdfast.control.ladder import Ladder
from holdfast.control.policy import Policy
from holdfast.control.sight import Can
from holdfast.control.stop_rules import Costs, StoppingRule, planned_learning
from holdfast.core.actions import ACTIONS, Continue, HalveBatch
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Snapshot
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.fits.additions import FitAdditions
from holdfast.methods.closed_form import HeadRefit
from holdfast.methods.optimizers import build_schedule, falls_to_zero
from holdfast.models.layers import count_parameters
from holdfast.plan.defaults import PASSIVE_POLICIES, benchmarked_phases
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.training.loop import TrainingResult
from holdfast.training.plan import Phase
from holdfast.training.run import dropouts_of
from holdfast.training.snapshot import AVERAGE

if TYPE_CHECKING:
    from holdfast.core.events import Listener


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


def deciders(
    ready: TrainingPlan, listeners: Sequence[Listener], additions: FitAdditions
) -> tuple[Choose, Controller | StoppingRule | None]:
    """Which checkpoint is kept, and who advises the run: a policy that acts, the rule that stops
    it, or nobody. ``listeners`` are those of its kind of task."""
    choose, policy = choice(ready, listeners), ready.recipe.control.policy
    if policy in PASSIVE_POLICIES:
        return choose, None if policy == "off" else stopping_rule(ready)
    rules = stopping_rule(ready), stopping_rule(ready, waits=False)
    acting = Controller(load_policy(policy), *rules, choose, course_of(ready, additions))
    return acting.choose, acting


def course_of(ready: TrainingPlan, additions: FitAdditions) -> ControlledPlan:
    """What a policy is told of this fit before its first step."""
    last = ready.plan.phases[-1]
    return ControlledPlan(
        evaluation_steps=ready.plan.evaluate_at,
        capabilities=what_it_can(ready, additions),
        rate=last.learning_rate,
        usual_rates=ready.usual_rates,
        class_skew=_skew(ready),
        findings=tuple(_leaking_rows(ready)),
        steps_per_epoch=math.ceil(len(ready.train) / last.rows_per_step),
        step_limit=ready.recipe.train.max_steps,
    )


def what_it_can(ready: TrainingPlan, additions: FitAdditions) -> Can:
    """The actions that this fit can take; those of the fine-tuning only where it has one."""
    names = [name for name in ACTIONS if name not in NO_CHOICE]
    tuned = any(additions.accepts(phase) for phase in ready.plan.phases)
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
        pictures=ready.recipe.task in IMAGE_TASKS,
        layers=tuple(name for name, learning in learns.items() if learning and name != "head"),
        falls=falls_to_zero(ready.plan.phases[-1].schedule),
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


# Of the learning of the measured recipe: rounding to whole steps is no other recipe.
SLACK = 1.05


def choice(ready: TrainingPlan, listeners: Sequence[Listener]) -> Choose:
    """Which state the run keeps, by ``train.keep``; ``listeners`` are those of its kind of
    task."""
    keep = ready.recipe.train.keep
    if keep == "newest_unless_worse":
        return partial(newest_unless_worse, gains=_gains(ready, listeners))
    if keep == "last":
        return last
    calibrated = ready.recipe.train.metric == "refined_loss"
    return lowest_calibrated if calibrated else lowest(criterion(ready))


def kept_state(ready: TrainingPlan, listeners: Sequence[Listener], trained: TrainingResult) -> Decision:
    """Which state the run keeps, in words, and why."""
    if trained.selected_average is not None:
        last = next(made for made in reversed(trained.offers) if made.accepted)
        chosen = f"step {trained.best_step} of {trained.last_step}, {last.decision.what}"
        if last.decision.what == AVERAGE:
            chosen = f"the average {last.name}, up to {chosen.partition(',')[0]}"
        return Decision("kept state", chosen, last.decision.because)
    at = next(i for i, s in enumerate(trained.history) if s.step == trained.best_step)
    chosen = f"step {trained.best_step} of {trained.last_step}"
    if at == 0 and begins_as_probe(listeners):
        chosen += f", before any update, with {start_probe(ready)} as its last layer"
    keep = ready.recipe.train.keep
    if keep == "last":
        because = "train.keep=last keeps the last checkpoint, whatever it is worth"
    elif keep == "newest_unless_worse" or ready.recipe.train.metric == "refined_loss":
        newest = keep == "newest_unless_worse"
        because = explain_choice(trained.history, at, gains=newest and _gains(ready, listeners))
    else:
        because = (
            f"its {ready.recipe.train.metric} on the validation rows is the best of all evaluations"
        )
    return Decision("kept state", chosen, because)


def begins_as_probe(listeners: Sequence[Listener]) -> bool:
    """Whether the head is fitted to the training rows before the first step."""
    return any(isinstance(listener, HeadRefit) and listener.first for listener in listeners)


def start_probe(ready: TrainingPlan) -> str:
    """What the last layer of a run is that begins as a linear probe: the baseline's, unless rows
    were added, which the baseline never learns from."""
    return "a linear probe fitted to the added rows too" if ready.added else "a linear probe"


def _gains(ready: TrainingPlan, listeners: Sequence[Listener]) -> bool:
    """Whether the run begins as a linear probe over which such runs were measured to gain."""
    total, _ = count_parameters(ready.loaded.network)
    sizes = (total, len(ready.train), ready.classes)
    measured = is_measured(ready.recipe, ready.plan.phases, sizes, ready.loaded.defaults)
    return begins_as_probe(listeners) and measured


def rule_of(
    recipe: ResolvedRecipe, phases: Sequence[Phase], sizes: tuple[int, int, int], model: str | None
) -> Literal["newest_unless_worse", "lowest"]:
    """``train.keep`` of a plan where the recipe leaves it open; see ``is_measured``."""
    as_measured = recipe.train.metric == "refined_loss" and recipe.methods.get("probe_first")
    newest = as_measured and is_measured(recipe, phases, sizes, model)
    return "newest_unless_worse" if newest else "lowest"


def is_measured(
    recipe: ResolvedRecipe, phases: Sequence[Phase], sizes: tuple[int, int, int], model: str | None
) -> bool:
    """Whether a plan learns no more (Σ learning rate over steps) than the default recipe of this
    kind of model, of ``sizes`` (parameters, training rows, classes), and that recipe was measured:
    to gain over its linear probe, and to be better where ``newest_unless_worse`` chooses."""
    parameters, rows, classes = sizes
    usual = benchmarked_phases(recipe, parameters, rows, model, classes)
    if usual is None:
        return False
    learning = [float(planned_rates(one).sum()) for one in (phases, usual)]
    return learning[0] <= SLACK * learning[1]


def criterion(ready: TrainingPlan) -> Callable[[Snapshot], float]:
    """A snapshot to a number, smaller is better, by ``train.metric``.

    ``refined_loss`` and ``loss`` are as they are; a metric that rises is negated. Where the metric
    ties (accuracy often does on few rows) or is undefined, the refined loss decides.
    """
    name = ready.recipe.train.metric
    if name == "refined_loss":
        return lambda snapshot: snapshot.refined_loss + 1e-6 * snapshot.valid_loss
    if name == "loss":
        return lambda snapshot: snapshot.valid_loss
    metric = ready.metric
    assert metric is not None
    sign = -1.0 if metric.higher_is_better else 1.0
    return lambda s: sign * s.valid_metrics[metric.name] + 1e-6 * s.refined_loss


def planned_rates(phases: Sequence[Phase]) -> Floats:
    """The backbone's learning rate at every step of the plan, one phase after the other."""
    rates = []
    for phase in phases:
        schedule = build_schedule(phase.schedule, phase.steps, phase.warmup_steps)
        rates += [phase.learning_rate * schedule.scale(step) for step in range(phase.steps)]
    return np.array(rates)
