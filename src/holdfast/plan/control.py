"""The policy of a recipe: as stated, or by the task, with a reason."""

from __future__ import annotations

from holdfast.core.machine import process_count
from holdfast.core.records import Decision
from holdfast.core.tasks import CLASSIFICATION_TASKS
from holdfast.data.table import Columns
from holdfast.recipe import Recipe

SETTING = "control.policy"
ADAPT, STOP = "adapt", "stop"
# Policies that may end a run, but never change it.
PASSIVE_POLICIES = ("off", STOP)


def resolve_policy(recipe: Recipe, columns: Columns) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with its policy, and the reason where the recipe does not state it: ``adapt``
    where its gains were measured (texts and images with one class each, one process, no teacher),
    else ``stop``."""
    if recipe.control.policy is not None:
        return recipe, ()
    unmeasured = {
        f"for {recipe.task}": recipe.task not in CLASSIFICATION_TASKS,
        f"where data.label_kind is {columns.label_kind}": not columns.one_class,
        "with distill.teacher": bool(recipe.distill.teacher),
        "with several processes": process_count() > 1,
    }
    where = next((words for words, there in unmeasured.items() if there), None)
    if where is None:
        because = (
            "Holdfast may replace a training plan that is far from the default one; changes during "
            "a run are kept only if the validation rows support them"
        )
        policy = ADAPT
    else:
        because, policy = f"the gains of {ADAPT} were not measured {where}", STOP
    decision = Decision(SETTING, policy, f"{because} (no changes: --set {SETTING}={STOP})")
    return _with_policy(recipe, policy), (decision,)


def without_trials(recipe: Recipe, because: str) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with the policy ``stop`` in place of one that changes a run, or of none, and the
    reason."""
    stated = recipe.control.policy
    if stated in PASSIVE_POLICIES:
        return recipe, ()
    chosen = STOP if stated is None else f"{STOP} in place of {stated}"
    decision = Decision(SETTING, chosen, because, prominent=stated is not None)
    return _with_policy(recipe, STOP), (decision,)


def _with_policy(recipe: Recipe, policy: str) -> Recipe:
    return recipe.with_changes(control={"policy": policy})
