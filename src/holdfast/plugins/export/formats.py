"""Export formats with their tasks and packages, and what all of them need of a run: the common
facts and its validation rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast._version import __version__
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision
from holdfast.core.tasks import CLASSIFICATION_TASKS, DECODER_TASKS, TAGGING_TASKS
from holdfast.data.table import Table
from holdfast.report.public import public_name
from holdfast.runs.finished_run import FinishedRun

READERS = (*CLASSIFICATION_TASKS, *TAGGING_TASKS)


@dataclass(frozen=True, slots=True)
class Format:
    """``file`` is the model's file in the export's folder; ``tasks`` the supported tasks;
    ``packages`` the imports that writing it needs.
    """

    name: str
    file: str
    tasks: tuple[str, ...]
    packages: tuple[str, ...]


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("onnx", "model.onnx", READERS, ("onnx", "onnxruntime", "onnxscript")),
        Format("openvino", "model.xml", READERS, ("onnx", "onnxruntime", "onnxscript", "openvino")),
        Format("gguf", "model.gguf", DECODER_TASKS, ("gguf",)),
        Format("merged", "model.safetensors", DECODER_TASKS, ()),
    )
}


LANGUAGE_FORMATS = tuple(one.name for one in FORMATS.values() if one.tasks == DECODER_TASKS)


def format_of(name: str, task: str) -> Format:
    """The format called ``name``, for a model of ``task``.

    Raises ``RecipeError`` for an unknown format or one that does not support the task, and
    ``MachineError`` where a package is missing.
    """
    if name not in FORMATS:
        raise RecipeError("--to", "is not a format", name, f"Choose one of: {', '.join(FORMATS)}.")
    form = FORMATS[name]
    if task not in form.tasks:
        fitting = [one.name for one in FORMATS.values() if task in one.tasks]
        remedy = (
            f"Choose --to {' or --to '.join(fitting)}."
            if fitting
            else "No format supports this task yet; its model/ folder loads in plain Transformers."
        )
        raise RecipeError("--to", f"{name} does not support the task {task}", name, remedy)
    need_packages(f"--to {name}", *form.packages, install="'holdfast[export]'")
    return form


def common_facts(
    finished_run: FinishedRun, form: Format, precision: str, because: str
) -> dict[str, Any]:
    """The facts that every format has, first in ``export.json``."""
    result = finished_run.result
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


def validation_rows(finished_run: FinishedRun) -> Table | None:
    """The run's validation rows; ``None`` where it had none, or where they cannot be read, which a
    decision then says. The predictions that the run stored of them are those of training, perhaps
    in bfloat16, and not those of the saved model."""
    because = "none were set aside: the run was cross-fitted on all rows"
    if not finished_run.out_of_fold:
        try:
            stored = finished_run.has("valid")
            table = (
                finished_run.predictions_of("valid").table
                if stored
                else finished_run.table("valid")
            )
            return table if len(table) else None
        except RunError as error:
            because = f"the validation rows cannot be read: {error.rule}"
    notify(Decision("scored", "not on validation rows", because, prominent=True))
    return None
