"""Restart a cross-fitted fit with the default plan, where the recipe's plan is far from it
(``control.policy=adapt``).

A plan is far from the default one if the sums of their learning rates over all updates differ by a
factor of 5 or more: a rate a thirtieth or ten times of the usual one, fifty epochs without decay.
Nothing can be changed once the folds are finished. So the first fold is run with
both plans, each predicts the rows held out, and the default plan is kept unless a paired test shows
that it is worse. The other folds and the fit on all rows follow the plan that is kept. A change in
the middle of a run must be shown to be better. Here the burden of proof is reversed: in benchmarks
the default plan was better on average than faulty ones, and fifty held-out rows are too few to show
that.

The default plan has the recipe's batch size, and at most its number of epochs. No trial is made
that could take the fit above 1.3 times its planned updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.contract.fit import FittedModel, TrainingPlan
from holdfast.control.choice import BETTER_LEVEL, checkpoint_figures, is_better, newest_unless_worse
from holdfast.control.controller import MOST_STEPS
from holdfast.control.ladder import Ladder
from holdfast.core.records import Decision, Snapshot
from holdfast.core.wording import count_phrase, factor_phrase
from holdfast.fits.policies import planned_rates
from holdfast.monitor.evidence import validation_losses
from holdfast.plan.control import ADAPT, SETTING, STOP
from holdfast.recipe import Recipe
from holdfast.recipe.recipe import parse

# The learning rates of two plans differ from this factor on.
FAR = Ladder().far
# What the default plan leaves open; the number of epochs too, where it has no more of them.
OPEN = ("learning_rate", "optimizer", "schedule", "warmup", "weight_decay", "layer_decay")
LENGTH = "epochs"
NAME = "the default plan"
PLAN = "training plan"
# Makes a fit's plan with other settings of ``train``, ``None`` for those that are left open.
Remake = Callable[[Mapping[str, object]], TrainingPlan]
ACTION = "Restart"


@dataclass(frozen=True, slots=True)
class PlanTrial:
    """A trial that has ended: why it was made, the ``settings`` that the default plan has in place
    of the recipe's, the ``updates`` that it took on the first fold, and whether it is ``kept``."""

    because: str
    settings: Mapping[str, Any]
    updates: int
    kept: bool

    def to_record(self) -> dict[str, Any]:
        """An entry of ``trials`` in ``result.json``."""
        action = {"action": ACTION, "because": self.because, "settings": dict(self.settings)}
        place = {"name": NAME, "step": 0, "from_step": 0, "kept": self.kept, "fold": 1}
        return {**place, "updates": self.updates, "actions": [action]}


def recipe_before_trials(fitted: FittedModel) -> Recipe:
    """The resolved recipe of a fit, with the settings of the plan as they were before a trial. A
    fit on other rows makes its own trial: this one was decided by labels of this fit's rows."""
    start = fitted.run_start
    if start is None or not start.trials:
        return fitted.recipe
    return parse({**fitted.recipe.model_dump(), **start.requested}, "recipe")


def not_tried(error: Exception) -> Decision:
    """The decision of a run for which the default plan cannot be made."""
    return Decision(PLAN, f"{NAME}: not tried", str(error))


def plan_settings(recipe: Recipe) -> list[str]:
    """The settings of ``train`` that the recipe states and the default plan would replace."""
    return [name for name in (*OPEN, LENGTH) if getattr(recipe.train, name) is not None]


def settings_to_try(recipe: Recipe) -> list[str]:
    """The settings of ``train`` that a trial would leave open; none without this policy."""
    return plan_settings(recipe) if recipe.control.policy == ADAPT else []


def default_plan(own: TrainingPlan, remake: Remake) -> TrainingPlan | None:
    """The default plan for the rows of a fit, where the ``own`` plan is far from it and may be
    replaced, else ``None``."""
    named = settings_to_try(own.prepared.recipe)
    if not named:
        return None
    usual = remake(dict.fromkeys(named))
    if usual.plan.steps > own.plan.steps and LENGTH in named:
        usual = remake(dict.fromkeys(name for name in named if name != LENGTH))
    return usual if max(ratio := _ratio(own, usual), 1 / ratio) >= FAR else None


def _ratio(own: TrainingPlan, usual: TrainingPlan) -> float:
    learned = [float(planned_rates(one.plan.phases).sum()) for one in (own, usual)]
    return max(learned[0], 1e-30) / max(learned[1], 1e-30)


def is_affordable(own: Sequence[int], usual: Sequence[int]) -> bool:
    """Whether the fit stays within 1.3 times its planned updates with the trial, kept or not. Both
    are the updates of each fold and of the fit on all rows."""
    return max(sum(own) + usual[0], own[0] + sum(usual)) <= MOST_STEPS * sum(own)


def judge_trial(
    own: tuple[TrainingPlan, Sequence[Snapshot]], usual: tuple[TrainingPlan, Sequence[Snapshot]]
) -> tuple[PlanTrial, Decision]:
    """Compare the best evaluations of the first fold's runs with both plans, on the same rows; a
    run that ended with an error has none. The trial, and the decision for the reader."""
    best = [
        history[newest_unless_worse(history)] if history else None for _, history in (own, usual)
    ]
    kept = best[0] is None or (best[1] is not None and not _is_better(best[0], best[1]))
    ratio = _ratio(own[0], usual[0])
    rows = next((one.valid_losses.size for one in best if one is not None), 0)
    figures = ["unknown" if one is None else checkpoint_figures(one) for one in best]
    if None in best:
        which = "the recipe's plan" if best[0] is None else NAME
        result = f"the run with {which} ended with an error"
    else:
        comparison = "is not" if kept else "is"
        test = f"one-sided paired t-test, threshold p < {BETTER_LEVEL:g}"
        result = f"{NAME} {comparison} significantly worse ({test})"
    before, after = (one[0].recipe.train for one in (own, usual))
    differing = [name for name in (*OPEN, LENGTH) if getattr(after, name) != getattr(before, name)]
    differences = ", ".join(
        f"train.{name} {getattr(before, name)} (default plan: {getattr(after, name)})"
        for name in differing
    )
    losses = f"{figures[0]} with the recipe's plan, {figures[1]} with {NAME}"
    because = (
        f"the recipe has {differences}; summed over all updates, its learning rates are "
        f"{factor_phrase(ratio)} the default plan's; calibrated loss on "
        f"{count_phrase(rows, 'held-out row')}: {losses}; {result}"
    )
    settings = {f"train.{name}": getattr(after, name) for name in differing}
    chosen = f"{NAME} in place of the recipe's" if kept else "the recipe's plan"
    if kept:
        because += (
            f"; to train with the recipe's plan, use --set {SETTING}={STOP} (it also turns off "
            "methods.label_weights)"
        )
    decision = Decision(PLAN, chosen, because, prominent=True)
    updates = usual[1][-1].step if usual[1] else 0
    return PlanTrial(because, settings, updates, kept), decision


def _is_better(one: Snapshot, other: Snapshot) -> bool:
    losses = validation_losses([one, other])
    return is_better(losses[:, 0], losses[:, 1])
