"""Tokenised rows of a language model, made by anybody, as rows of an audit: decoded, for the checks
of texts, and with the faults of their tokens and labels (``quality/tokens.py``)."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from holdfast.core.discovery import user_path
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.packaged_models import EMBEDDED, PACKAGED_MODELS, SMOLLM2
from holdfast.core.records import Decision, Finding
from holdfast.core.wording import count_phrase
from holdfast.data.chats.chat import chats_from_prompts
from holdfast.data.source import read_first_batch, read_source
from holdfast.data.table import Table
from holdfast.models.loading.checks import loading
from holdfast.models.loading.packaged import packaged_folder
from holdfast.quality.token_rows import spread, token_rows
from holdfast.quality.tokens import CHECKS, check_tokens
from holdfast.recipe import DataPart, Recipe

IDS, MASK = "input_ids", "attention_mask"
NAMES = (IDS, "labels", MASK)
LARGEST = 2**31
# A thousand rows take a second or two.
MOST_CHECKED = 10_000


def silent_token_checks(findings: Sequence[Finding], checked: int, rows: int) -> Decision:
    """Which checks of tokens and labels have no finding, of so many of the rows."""
    found = {one.check for one in findings}
    return Decision(
        "checks of tokens and labels without a finding",
        ", ".join(one.name for one in CHECKS if one.name not in found) or "none",
        f"{checked:,} of {count_phrase(rows, 'row')} were checked",
        prominent=True,
    )


def is_tokenized(path: str, data: DataPart) -> bool:
    """Whether the source is a table with token ids."""
    # Folders of images, passages and tagged words are no tables; what cannot be read is told later.
    with contextlib.suppress(DataError):
        return IDS in read_first_batch(path, data.encoding, data.config).names
    return False


def read_tokenized(
    path: str, recipe: Recipe, beginning: str | None = None
) -> tuple[Table, str, int]:
    """The rows of a tokenised source, decoded by the tokenizer of the recipe's model, with the
    findings on their tokens and labels; the ``beginning`` that all have in common (a template's
    own, such as its system message), which is left out of the texts; and how many rows were
    checked. Another source is read with the beginning of the first.

    Raises ``RecipeError`` where no model is named, ``ModelError`` where it has no readable
    tokenizer, and ``DataError`` for rows that are not token ids.
    """
    data, model = recipe.data, recipe.model.name
    if model == EMBEDDED:
        rule = "must name the model whose tokenizer decodes the rows (column input_ids)"
        remedy = f"Name the model: --set model.name={SMOLLM2}, a folder, or a model of the hub."
        raise RecipeError("model.name", rule, None, remedy)
    tokenizer = _tokenizer(model, recipe.model.revision)
    raw = read_source(path, data.encoding, data.config)
    if IDS not in raw.names:
        remedy = "Compare tokenised rows with tokenised rows."
        raise DataError(path, f"has no column {IDS}, which the other rows have", None, remedy)
    columns = {name: raw.table[name].to_pylist() for name in NAMES if name in raw.names}
    rows = [
        {name: _numbers(path, number, name, cells[number]) for name, cells in columns.items()}
        for number in range(len(raw))
    ]
    for number, row in enumerate(rows):
        sizes = {name: len(cells) for name, cells in row.items() if cells is not None}
        if len(set(sizes.values())) > 1:
            rule = f"has lists of different lengths in row {number}"
            raise DataError(path, rule, sizes, "Give a label and a mask for each token.")
    found = token_rows(rows, tokenizer)
    texts = [
        str(
            tokenizer.decode(
                one.ids[one.read & (one.ids < len(tokenizer))].tolist(), skip_special_tokens=True
            )
        )
        for one in found
    ]
    if beginning is None:
        beginning = texts[0][: _common_beginning(texts)] if len(texts) > 1 else ""
    table = chats_from_prompts([text.removeprefix(beginning) for text in texts], like="text")
    checked = spread(found, MOST_CHECKED)
    findings = check_tokens(checked, tokenizer)
    table = replace(table, source=raw.source, findings=findings, decisions=raw.decisions)
    return table, beginning, len(checked)


def _common_beginning(texts: Sequence[str]) -> int:
    """How many characters all texts have in common at their beginning: those that the first and the
    last in order have."""
    pairs = zip(min(texts), max(texts), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _tokenizer(model: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    folder = packaged_folder(model) if model in PACKAGED_MODELS else user_path(model)
    name = str(folder) if folder.is_dir() else model
    with loading(model, "has no tokenizer that can be read", "Name the model of these rows."):
        return AutoTokenizer.from_pretrained(
            name, revision=revision or "main", trust_remote_code=False
        )


def _numbers(path: str, row: int, name: str, cell: object) -> Any:
    """The whole numbers in a cell, which holds a list; ``None`` for labels or a mask that is
    missing."""
    if cell is None and name != IDS:
        return None
    try:
        found = json.loads(str(cell))
    except ValueError:
        found = None
    if name == MASK and isinstance(found, list):
        found = [int(one) if type(one) is bool else one for one in found]
    whole = isinstance(found, list) and all(
        type(one) is int and abs(one) < LARGEST for one in found
    )
    if not whole or (name == IDS and any(one < 0 for one in found)):
        rule = f"has no list of whole numbers in row {row}, column {name}"
        raise DataError(path, rule, str(cell)[:60], "Give one list of whole numbers per row.")
    return found
