"""The decisions of a fit: the stopping rule, the policy that ``control.policy`` names with its
possible actions, and the rule that selects the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from holdfast.contract.fit import TrainingPlan
from holdfast.control.choice import (
    BETTER_LEVEL,
    Choose,
    explain_choice,
    last,
    lowest,
    lowest_calibrated,
    newest_unless_worse,
)
from holdfast.control.controller import ControlledPlan, Controller
from holdfast.control.ladder import Ladder
from holdfast.control.policy import Policy
from holdfast.control.sight import Can
from holdfast.control.stop_rules import Costs, StoppingRule, planned_learning
from holdfast.core.actions import ACTIONS, Continue, HalveBatch
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Snapshot
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.core.user_code import import_file, member_of
from holdfast.core.wording import count_phrase
from holdfast.fits.additions import FitAdditions
from holdfast.methods.closed_form import HeadRefit
from holdfast.methods.optimizers import build_schedule, falls_to_zero
from holdfast.models.layers import BACKBONE, count_parameters
from holdfast.plan.control import ADAPT, PASSIVE_POLICIES, SETTING
from holdfast.plan.defaults import (
    FINETUNE,
    MIN_ROWS_FOR_CONTRAST,
    ROW_METHODS,
    benchmarked_phases,
    plan_phases,
    resolve_settings,
)
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe, resolve_recipe
from holdfast.training.loop import TrainingResult
from holdfast.training.plan import Phase
from holdfast.training.run import dropouts_of
from holdfast.training.snapshot import AVERAGE

if TYPE_CHECKING:
    from holdfast.core.events import Listener


# Actions that only affect memory, or do nothing, are not for a policy to choose.
NOT_FOR_POLICIES = (HalveBatch.__name__, Continue.__name__)
# Findings whose rows make validation scores unreliable.
LEAKS = ("leak", "copies", "duplicates", "giveaway", "target_is_source")


def stopping_rule(training_plan: TrainingPlan, *, waits: bool = True) -> StoppingRule:
    """The rule by which the policy ``stop`` ends the run; without ``waits`` it never stops for lack
    of improvement."""
    control, first = training_plan.recipe.control, training_plan.plan.phases[0]
    # Such a phase shapes the features for the head that follows. It is short, and with a hundred
    # labelled rows 18 validation rows are too few to shorten it further.
    start = first.steps if first.head == "refit" else 0
    learning = planned_learning(
        training_plan.plan.evaluate_at, planned_rates(training_plan.plan.phases)
    )
    costs = Costs(control.worth, control.chance) if waits else None
    return StoppingRule(
        learning, costs, training_plan.recipe.train.patience, criterion(training_plan), start
    )


def deciders(
    training_plan: TrainingPlan,
    listeners: Sequence[Listener],
    additions: FitAdditions,
    *,
    acts: bool = True,
) -> tuple[Choose, Controller | StoppingRule | None]:
    """The rule that selects the checkpoint, and the adviser of the run: a policy that acts, the
    stopping rule, or none. ``listeners`` are those of its task. Without ``acts`` no policy changes
    the run: its evaluations are those of other networks."""
    choose, policy = checkpoint_rule(training_plan, listeners), training_plan.recipe.control.policy
    if policy == "off":
        return choose, None
    if policy in PASSIVE_POLICIES or not acts:
        return choose, stopping_rule(training_plan)
    rules = stopping_rule(training_plan), stopping_rule(training_plan, waits=False)
    controller = Controller(
        load_policy(policy), *rules, choose, run_context(training_plan, additions)
    )
    return controller.choose, controller


def run_context(training_plan: TrainingPlan, additions: FitAdditions) -> ControlledPlan:
    """What a policy knows about this fit before its first step."""
    last = training_plan.plan.phases[-1]
    return ControlledPlan(
        evaluation_steps=training_plan.plan.evaluate_at,
        capabilities=possible_actions(training_plan, additions),
        rate=last.learning_rate,
        usual_rates=training_plan.usual_rates,
        class_skew=_skew(training_plan),
        findings=tuple(_leaking_rows(training_plan)),
        steps_per_epoch=math.ceil(len(training_plan.train) / last.rows_per_step),
        step_limit=training_plan.recipe.train.max_steps,
        first_end=training_plan.plan.first_end,
    )


def possible_actions(training_plan: TrainingPlan, additions: FitAdditions) -> Can:
    """The actions that this fit can take; those of fine-tuning only where it has that phase."""
    names = [name for name in ACTIONS if name not in NOT_FOR_POLICIES]
    has_finetuning = any(additions.accepts(phase) for phase in training_plan.plan.phases)
    methods, notches = (additions.possible, additions.notches) if has_finetuning else ({}, 0)
    network = training_plan.loaded.network
    float_parameters = [p for p in network.parameters() if p.is_floating_point()]
    is_trainable = {
        layer.name: any(p.requires_grad for p in layer.parameters()) for layer in network.layers()
    }
    # Layers that the recipe freezes stay frozen; the word-embedding table is frozen by default. Of
    # a resumed run the recipe states every setting, so what was open is not known.
    is_open = network.adapter is None and training_plan.recipe.model.freeze == "words"
    impossible = [] if methods else ["SwitchOn"]
    impossible += [] if notches else ["StrengthenAugmentation"]
    impossible += [] if dropouts_of(network) else ["SetDropout"]
    return Can(
        actions=tuple(name for name in names if name not in impossible),
        methods=methods,
        notches=notches,
        frozen=is_open and not all(p.requires_grad for p in float_parameters),
        pictures=training_plan.recipe.task in IMAGE_TASKS,
        layers=tuple(
            name for name, learning in is_trainable.items() if learning and name != "head"
        ),
        falls=falls_to_zero(training_plan.plan.phases[-1].schedule),
    )


def _skew(training_plan: TrainingPlan) -> float | None:
    labels = getattr(training_plan.train, "labels", None)
    if not training_plan.classes or labels is None:
        return None
    sizes = np.bincount(np.asarray(labels))
    return float(sizes.max() / max(1, sizes[sizes > 0].min()))


def _leaking_rows(training_plan: TrainingPlan) -> list[str]:
    findings = (*training_plan.prepared.findings, *training_plan.findings)
    return [
        f"{one.check.replace('_', ' ')}: rows {', '.join(map(str, one.rows[:20]))}"
        + ("…." if len(one.rows) > 20 else ".")
        for one in findings
        if one.rows and any(word in one.check for word in LEAKS)
    ]


def load_policy(spec: str) -> Policy:
    """The policy of this name: ``adapt``, or a user's class, ``file.py:Name``.

    Raises ``RecipeError`` where it does not exist, where its file fails on import, and where the
    name is not a policy. Its code runs in the training process, with the rights of the user.
    """
    if spec == ADAPT:
        return Ladder()
    path, _, name = spec.rpartition(".py:")
    remedy = "Give the policy as path.py:Class; a relative path starts at the current folder."
    module = import_file(SETTING, Path(path + ".py"), remedy)
    policy_class = member_of(SETTING, module, f"{path}.py", name, "class")
    try:
        policy = policy_class()
    except Exception as error:
        rule = f"cannot be made without arguments: {type(error).__name__}: {error}"
        raise RecipeError(SETTING, rule, name, "Give every setting a default.") from error
    if not isinstance(policy, Policy):
        remedy = "Give it decide(self, sight), which returns what to try, Stop, Continue or None."
        raise RecipeError(SETTING, "is not a policy: it has no method decide(sight)", name, remedy)
    return policy


# 8 updates instead of 40, 100 rows of five sets, one draw each: twice and three times the rate
# gained 2.1 and 2.0 points, six times lost 0.2. 16 updates: 1.6 times the rate gained 0.6 points.
MOST_FASTER = 3.0
# 800 rows of four sets, one draw each: in place of fine-tuning, 8, 20 and 40 updates of contrast at
# three times the rate gained 5.2, 4.7 and 2.4 points; 80 updates 1.0.
FEW_UPDATES = 40


def plan_for_few_updates(
    recipe: Recipe, parameters: int, rows: int, model: str | None, classes: int
) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe for a limit of updates, under ``control.policy=adapt``, where the default plan is
    a measured one, the recipe's epochs or ``train.max_steps`` leave n of its N updates, and the
    rate is open: the default rate times √(N ÷ n), at most ``MOST_FASTER``, if the plan is contrast
    alone; and contrast alone at that rate if it would fine-tune for at most ``FEW_UPDATES``. With
    the reasons."""
    train, kind = recipe.train, (model, classes)
    is_limited = train.epochs is not None or train.max_steps is not None
    if recipe.control.policy != ADAPT or train.learning_rate is not None or not is_limited:
        return recipe, ()
    filled = resolve_recipe(resolve_settings(recipe, parameters, rows, *kind)[0])
    usual = benchmarked_phases(filled, parameters, rows, *kind)
    if usual is None:
        return recipe, ()
    own = plan_phases(filled, parameters, rows, *kind)
    updates, most = (sum(phase.steps for phase in phases) for phases in (own, usual))
    finetunes = any(phase.name == FINETUNE for phase in (*usual, *own))
    has_methods = recipe.methods.keys() - {*ROW_METHODS, "probe_first"}
    # An update of contrast takes more rows, so more memory, than a small batch.
    stated = train.batch_size or recipe.distill.teacher or recipe.model.freeze == BACKBONE
    fixed = has_methods or stated or not classes or rows < MIN_ROWS_FOR_CONTRAST
    if updates >= most or (finetunes and (fixed or updates > FEW_UPDATES)):
        return recipe, ()
    factor = min(MOST_FASTER, math.sqrt(most / updates))
    rate = filled.train.learning_rate * factor
    allowed = (
        f"the recipe allows {count_phrase(updates, 'update')} of the {most:,} in the default plan"
    )
    because = (
        f"{allowed}, so its learning rate of {filled.train.learning_rate:g} is multiplied by "
        f"{factor:.2g} (the square root of {most:,} ÷ {updates:,}, at most {MOST_FASTER:g})"
    )
    decisions = [Decision("train.learning_rate", f"{rate:.3g}", because, prominent=True)]
    changed = recipe.with_changes(train={"learning_rate": rate})
    if finetunes:
        changed = _contrast_alone(changed, updates, rate)
        # An update of contrast takes more rows, which count as epochs.
        resolved = resolve_recipe(resolve_settings(changed, parameters, rows, *kind)[0])
        steps = sum(phase.steps for phase in plan_phases(resolved, parameters, rows, *kind))
        changed = _contrast_alone(changed, steps, rate)
        because = f"{allowed}; in benchmarks contrast gained more from so few on average"
        chosen = f"contrast alone, {steps} updates"
        decisions += [Decision("training", chosen, because, prominent=True)]
    return changed, tuple(decisions)


def _contrast_alone(recipe: Recipe, updates: int, rate: float) -> Recipe:
    contrast = {"steps": updates, "learning_rate": rate}
    return recipe.with_changes(train={"max_steps": updates}, methods={"contrast": contrast})


# Tolerance when comparing with the benchmarked recipe, for rounding to integer steps.
SLACK = 1.05


def checkpoint_rule(training_plan: TrainingPlan, listeners: Sequence[Listener]) -> Choose:
    """The rule that selects the run's best checkpoint, by ``train.keep``; ``listeners`` are those
    of its task."""
    keep = training_plan.recipe.train.keep
    if keep == "newest_unless_worse":
        return partial(newest_unless_worse, gains=_expects_gain(training_plan, listeners))
    if keep == "last":
        return last
    calibrated = training_plan.recipe.train.metric == "refined_loss"
    return lowest_calibrated if calibrated else lowest(criterion(training_plan))


def checkpoint_decision(
    training_plan: TrainingPlan, listeners: Sequence[Listener], trained: TrainingResult
) -> Decision:
    """The decision on the run's best checkpoint, with the reason."""
    if trained.selected_average is not None:
        last = next(offer for offer in reversed(trained.offers) if offer.accepted)
        checkpoint = f"step {trained.best_step} of {trained.last_step}, {last.decision.what}"
        if last.decision.what == AVERAGE:
            checkpoint = f"the average {last.name}, up to {checkpoint.partition(',')[0]}"
        return Decision("best checkpoint", checkpoint, last.decision.because)
    index = next(i for i, s in enumerate(trained.history) if s.step == trained.best_step)
    checkpoint = f"step {trained.best_step} of {trained.last_step}"
    if index == 0 and begins_as_probe(listeners):
        checkpoint += f", before any update, with {start_probe(training_plan)} as its last layer"
    keep = training_plan.recipe.train.keep
    if keep == "last":
        because = "train.checkpoint_selection=last selects the last checkpoint, whatever its score"
    elif keep == "newest_unless_worse" or training_plan.recipe.train.metric == "refined_loss":
        newest = keep == "newest_unless_worse"
        because = explain_choice(
            trained.history, index, gains=newest and _expects_gain(training_plan, listeners)
        )
    else:
        because = _best_by_metric(training_plan, trained, trained.history[index])
    return Decision("best checkpoint", checkpoint, because)


def _best_by_metric(training_plan: TrainingPlan, trained: TrainingResult, kept: Snapshot) -> str:
    """Why a checkpoint is kept that was chosen by a metric other than the loss."""
    metric, score = training_plan.recipe.train.metric, criterion(training_plan)
    finite = [one for one in trained.evaluations if math.isfinite(score(one))]
    best = min(finite, key=score, default=kept)
    if not score(best) < score(kept) - TIED:
        return f"its {metric} on the validation rows is the best of all evaluations"
    return (
        f"its {metric} on the validation rows is the best of its trial; that of step {best.step} "
        "of another trial is better, but its loss is not shown to be lower (one-sided paired "
        f"t-test, p < {BETTER_LEVEL:g})"
    )


def begins_as_probe(listeners: Sequence[Listener]) -> bool:
    """Whether the head is fitted to the training rows before the first step."""
    return any(isinstance(listener, HeadRefit) and listener.first for listener in listeners)


def start_probe(training_plan: TrainingPlan) -> str:
    """The last layer of a run that begins as a linear probe, in words: that of the baseline, unless
    rows were added, which the baseline never learns from."""
    return (
        "a linear probe fitted to the added rows too" if training_plan.added else "a linear probe"
    )


def _expects_gain(training_plan: TrainingPlan, listeners: Sequence[Listener]) -> bool:
    """Whether the run begins as a linear probe, and such runs gained over it in benchmarks."""
    return begins_as_probe(listeners) and is_measured(training_plan)


def is_measured(training_plan: TrainingPlan) -> bool:
    """``within_measured_recipe`` of a fit's plan."""
    total, _ = count_parameters(training_plan.loaded.network)
    sizes = (total, len(training_plan.train), training_plan.classes)
    return within_measured_recipe(
        training_plan.recipe, training_plan.plan.phases, sizes, training_plan.loaded.defaults
    )


def keep_rule(
    recipe: ResolvedRecipe, phases: Sequence[Phase], sizes: tuple[int, int, int], model: str | None
) -> Literal["newest_unless_worse", "lowest"]:
    """``train.keep`` of a plan where the recipe leaves it open; see ``within_measured_recipe``."""
    like_measured = recipe.train.metric == "refined_loss" and recipe.methods.get("probe_first")
    newest = like_measured and within_measured_recipe(recipe, phases, sizes, model)
    return "newest_unless_worse" if newest else "lowest"


def within_measured_recipe(
    recipe: ResolvedRecipe, phases: Sequence[Phase], sizes: tuple[int, int, int], model: str | None
) -> bool:
    """Whether a plan learns no more (Σ learning rate over steps) than the default recipe for this
    type of model and these ``sizes`` (parameters, training rows, classes), at no rate above
    ``MOST_FASTER`` times its own, and that recipe was benchmarked: it gains over its linear probe,
    and ``newest_unless_worse`` selects better."""
    parameters, rows, classes = sizes
    measured = benchmarked_phases(recipe, parameters, rows, model, classes)
    if measured is None:
        return False
    own, usual = (planned_rates(one) for one in (phases, measured))
    most = SLACK * MOST_FASTER * usual.max(initial=0.0)
    return bool(own.sum() <= SLACK * usual.sum() and own.max(initial=0.0) <= most)


# A smaller difference of ``criterion`` is that of the losses, which decide between equal metrics.
TIED = 1e-4


def criterion(training_plan: TrainingPlan) -> Callable[[Snapshot], float]:
    """A function from a snapshot to a number, lower is better, by ``train.metric``.

    ``refined_loss`` and ``loss`` are used directly; a metric to maximise is negated. Where the
    metric is tied (accuracy often is on few rows) or undefined, the calibrated loss decides.
    """
    name = training_plan.recipe.train.metric
    if name == "refined_loss":
        return lambda snapshot: snapshot.refined_loss + 1e-6 * snapshot.valid_loss
    if name == "loss":
        return lambda snapshot: snapshot.valid_loss
    metric = training_plan.metric
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
