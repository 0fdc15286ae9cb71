"""One file per task: how its reader, model, rows, scores and predictions are put together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from holdfast.core.discovery import nearest
from holdfast.core.errors import Defect, RecipeError

if TYPE_CHECKING:
    from holdfast.pipeline.ready import Kind

MODULES = {
    "text-classification": "holdfast.pipeline.kinds.text_classification",
    "seq2seq": "holdfast.pipeline.kinds.seq2seq",
    "causal-lm": "holdfast.pipeline.kinds.causal_lm",
    "image-classification": "holdfast.pipeline.kinds.image_classification",
}


def kind_of(task: str | None) -> Kind:
    """The kind that a recipe's ``task`` names; its libraries are imported now."""
    if task is None:
        raise Defect("a recipe's task", "was not worked out before it was asked for")
    if task not in MODULES:
        raise RecipeError("task", "is not known", task, nearest(task, list(MODULES)))
    kind: Kind = importlib.import_module(MODULES[task]).KIND
    return kind
