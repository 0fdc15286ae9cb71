"""How long an update trains: what the served run's recipe counts in updates, for more rows.

An update takes the recipe of its run for other rows, as a rule more. Whatever a recipe counts in
passes or as a share grows with them by itself (``train.epochs``, ``train.warmup``, schedules, the
``train.evaluations`` over the course, ``train.patience`` among these). Three settings do not:

- ``train.max_steps`` bounds the updates: for n times the rows it leaves 1/n of the passes. It is
  scaled with the rows, since the run was judged with so many passes;
- ``methods.contrast.steps``, a stage before the fine-tuning. It stays: ``train.epochs`` bounds all
  phases together, and what the stage does not take is left to the fine-tuning;
- ``train.max_minutes`` bounds the time that a person is willing to wait. It stays.

Each is said, with what would change it. What is set for the update itself is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from holdfast.core.records import Decision
from holdfast.core.wording import counted
from holdfast.recipe import Recipe

STEPS, STAGE, MINUTES = "train.max_steps", "methods.contrast.steps", "train.max_minutes"


def for_rows(
    recipe: Recipe, before: int, after: int, given: Iterable[str] = ()
) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe of a run of ``before`` training rows for ``after`` rows, and what is to be said of
    it; ``given`` are the settings of the update (``KEY=VALUE``), of which none is changed.

    ``train.max_steps`` becomes ⌈steps · after ÷ before⌉, so that a row is passed as often as it
    was. Nothing is changed or said for as many rows as before.
    """
    named = {setting.partition("=")[0].strip() for setting in given}
    if before == after or before < 1:
        return recipe, ()
    rows = f"{counted(after, 'training row')} in the place of {before:,}"
    told = []
    steps, minutes = recipe.train.max_steps, recipe.train.max_minutes
    if steps is not None and STEPS not in named:
        scaled = math.ceil(steps * after / before)
        because = (
            f"{rows}: as many passes over them as the {steps:,} updates of the served run were; "
            f"--set {STEPS}={steps} keeps the number"
        )
        told.append(Decision(STEPS, f"{scaled:,}", because, prominent=True))
        recipe = recipe.changed(train={"max_steps": scaled})
    stage = (recipe.methods.get("contrast") or {}) if recipe.methods else {}
    if isinstance(stage, dict) and stage.get("steps") and not named & {STAGE, "methods.contrast"}:
        because = (
            f"{rows}: the number of steps stays, and the remaining epochs of train.epochs are used "
            f"for fine-tuning; --set {STAGE}=N changes it"
        )
        told.append(Decision(STAGE, f"{stage['steps']:,}", because, prominent=True))
    if minutes is not None and MINUTES not in named:
        because = (
            f"{rows} in no more time, which may end the training before its passes are done; "
            f"--set {MINUTES}=M changes it"
        )
        told.append(Decision(MINUTES, f"{minutes:g}", because, prominent=True))
    return recipe, tuple(told)
