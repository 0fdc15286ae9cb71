"""What every format's export needs of a run: the facts in common, its validation rows, and the
refusal of a file that computes something else."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast._version import __version__
from holdfast.core.decisions import DecisionListener as Notify
from holdfast.core.errors import ModelError, RunError
from holdfast.core.records import Decision, Ints
from holdfast.data.table import Table
from holdfast.plugins.export.formats import Format
from holdfast.report.public import public_name
from holdfast.runs.finished_run import FinishedRun


def about(again: FinishedRun, form: Format, precision: str, because: str) -> dict[str, Any]:
    """The facts that every format has, first in ``export.json``."""
    result = again.result
    return {
        "schema": 1,
        "holdfast": __version__,
        "format": form.name,
        "file": form.file,
        "precision": precision,
        "kept_because": because,
        "task": result["task"],
        "model": public_name(str(result.get("model") or "")),
    }


def valid_rows(again: FinishedRun, notify: Notify) -> tuple[Table | None, list[Any] | None]:
    """The run's validation rows and what it stored of its answers (``None`` where it stored none);
    no rows where the run had none or they cannot be read, which is said."""
    if again.out_of_fold:
        because = "none were set aside: rows that the model learned from were answered by others"
        notify(Decision("scored", "not on validation rows", because, prominent=True))
        return None, None
    try:
        if again.has("valid"):
            told = again.told("valid")
            return (told.table if len(told) else None), list(told.predictions or ()) or None
        table = again.table("valid")
        return (table if len(table) else None), None
    except RunError as error:
        because = f"the validation rows cannot be read: {error.rule}"
        notify(Decision("scored", "not on validation rows", because, prominent=True))
        return None, None


def middle(lengths: Ints, least: int = 2) -> int:
    """The median length, of which speed is measured."""
    return max(least, int(np.median(lengths))) if len(lengths) else 33


def too_far(what: str, gap: float, most: float) -> ModelError:
    """What is raised where a file computes something else than the model."""
    return ModelError(
        what,
        f"differs from the model by more than {most:g} of the largest logit, so it is not kept",
        gap,
        "Please report it, with the model's name: its architecture is not exported faithfully.",
    )
