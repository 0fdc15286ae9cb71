"""The policy of a recipe: as stated, or by the task, with a reason."""

from __future__ import annotations

from holdfast.core.machine import process_count
from holdfast.core.records import Decision
from holdfast.core.tasks import CLASSIFICATION_TASKS, DECODER_TASKS
from holdfast.data.table import Columns
from holdfast.recipe import Recipe

SETTING = "control.policy"
ADAPT, STOP = "adapt", "stop"
# Policies that may end a run, but never change it.
PASSIVE_POLICIES = ("off", STOP)


def resolve_policy(recipe: Recipe, columns: Columns) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with its policy, and the reason where the recipe does not state it: ``adapt``
    where its gains were measured (texts and images with one class each, one process, no teacher),
    else ``stop``. For a language model it gains only where the learning rate is far from the usual
    one, and may take twice the time in vain where the run overfits (benchmarks/language.py)."""
    if recipe.control.policy is not None:
        return recipe, ()
    unmeasured = f"the gains of {ADAPT} were not measured"
    obstacles = {
        f"for a language model, {ADAPT} helps only if the learning rate is far from the usual one, "
        "and can double the training time without a gain": recipe.task in DECODER_TASKS,
        f"{unmeasured} for {recipe.task}": recipe.task not in CLASSIFICATION_TASKS,
        f"{unmeasured} where data.label_kind is {columns.label_kind}": not columns.one_class,
        f"{unmeasured} with distill.teacher": bool(recipe.distill.teacher),
        f"{unmeasured} with several processes": process_count() > 1,
    }
    obstacle = next((words for words, there in obstacles.items() if there), None)
    if obstacle is None:
        because = (
            "Holdfast may replace a training plan that is far from the default one; changes during "
            "a run are kept only if the validation rows support them (no changes: --set "
            f"{SETTING}={STOP})"
        )
        return _with_policy(recipe, ADAPT), (Decision(SETTING, ADAPT, because),)
    because = f"{obstacle} (to try changes: --set {SETTING}={ADAPT})"
    return _with_policy(recipe, STOP), (Decision(SETTING, STOP, because),)


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
