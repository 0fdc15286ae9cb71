"""From which certainty on answers could be relied on: three promises, chosen on validation rows and
measured on test rows. Nothing is set: ``holdfast threshold`` does that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.analyses.analysis import After, Analysis, Before, NoAnswer
from holdfast.analyses.threshold.choice import SURE, ThresholdChoice
from holdfast.analyses.threshold.command import (
    BROKEN,
    ThresholdRequest,
    chosen_by,
    measured,
    refuse_task,
)
from holdfast.core.errors import RecipeError

PROMISES = (0.9, 0.95, 0.99)


def find(before: Before) -> Mapping[float, ThresholdChoice] | NoAnswer:
    """The threshold of each promise, from validation rows alone."""
    task = str(before.fitted.recipe.task)
    try:
        refuse_task(task, before.valid, ThresholdRequest(precision=PROMISES[0]))
    except RecipeError as error:
        return NoAnswer(error.rule)
    return {p: chosen_by(before.valid, ThresholdRequest(precision=p)) for p in PROMISES}


def confirm(found: Mapping[float, ThresholdChoice], after: After) -> dict[str, Any]:
    """What each does on the test rows."""
    lines = []
    for promise, chosen in found.items():
        line: dict[str, Any] = {"precision": promise, "threshold": chosen.threshold}
        line |= {"why": chosen.why, "rows_needed": chosen.rows, "test": None}
        if chosen.threshold is not None:
            line["test"] = measured(after.test, chosen.threshold)
            line["test"].pop("per_class", None)
        lines.append(line)
    return {"sure": SURE, "broken_in": BROKEN, "promises": lines}


QUESTION = Analysis("thresholds", ("thresholds",), find, confirm)
