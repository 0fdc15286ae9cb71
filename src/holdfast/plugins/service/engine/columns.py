"""The columns that a row of a request must have, by the recipe of a run.

Imports no model, so that ``holdfast promote`` can compare runs without loading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.contract.extra_features import saved_layer
from holdfast.contract.inference import data_part, read_columns
from holdfast.core.tasks import DECODER_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.data.columns.extra import ColumnRequest, source_columns
from holdfast.recipe import DataPart

IMAGE, TOKENS, PROMPT, TEXT = "image", "tokens", "prompt", "text"


def run_columns(run: Path, task: str) -> tuple[str, ...] | None:
    """The columns of a finished run of ``task``; ``None`` where only the loaded model knows them.

    Raises ``RunError`` where the layer over feature columns was changed or is broken.
    """
    part = data_part(run)
    if task in IMAGE_TASKS:
        return (IMAGE,)
    if task in TAGGING_TASKS:
        return token_columns(part)
    if task in DECODER_TASKS:
        return prompt_columns(part)
    layer = saved_layer(run)
    return text_columns(part, () if layer is None else layer.required_columns)


def token_columns(part: DataPart) -> tuple[str, ...]:
    """The column of the tokens that get tags."""
    return (part.text or (TOKENS,))[:1]


def prompt_columns(part: DataPart) -> tuple[str, ...] | None:
    """The text columns of a language model; ``None`` where the model decides the name."""
    return None if part.messages else part.text


def text_columns(part: DataPart, features: Sequence[ColumnRequest]) -> tuple[str, ...]:
    """The columns of the text, then those of the ``features``."""
    return (*(read_columns(part) or (TEXT,)), *source_columns(features))
