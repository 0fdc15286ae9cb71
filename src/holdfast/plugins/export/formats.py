"""The formats, which tasks each is for, and the packages that it needs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from holdfast.core.errors import MachineError, RecipeError

READERS = ("text-classification", "token-classification", "image-classification")
WRITERS = ("causal-lm",)


@dataclass(frozen=True, slots=True)
class Format:
    """``file`` is the model's file in the export's folder; ``tasks`` those that it is for;
    ``packages`` what writing it imports."""

    name: str
    file: str
    tasks: tuple[str, ...]
    packages: tuple[str, ...]


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("onnx", "model.onnx", READERS, ("onnx", "onnxruntime", "onnxscript")),
        Format("openvino", "model.xml", READERS, ("onnx", "onnxruntime", "onnxscript", "openvino")),
        Format("gguf", "model.gguf", WRITERS, ("gguf",)),
    )
}


def format_of(name: str, task: str) -> Format:
    """The format called ``name``, for a model of ``task``. Raises ``RecipeError`` for one that
    there is not, or that is not for the task, and ``MachineError`` where a package is missing."""
    if name not in FORMATS:
        raise RecipeError("--to", "is no format", name, f"Choose one of: {', '.join(FORMATS)}.")
    found = FORMATS[name]
    if task not in found.tasks:
        fitting = [one.name for one in FORMATS.values() if task in one.tasks]
        remedy = (
            f"Choose --to {' or --to '.join(fitting)}."
            if fitting
            else "There is none for this task yet; its model/ folder loads in plain Transformers."
        )
        raise RecipeError("--to", f"{name} is not for the task {task}", name, remedy)
    lacking = [one for one in found.packages if importlib.util.find_spec(one) is None]
    if lacking:
        raise MachineError(
            f"--to {name}",
            f"needs the package {', '.join(lacking)}",
            None,
            "pip install 'holdfast[export]'",
        )
    return found
