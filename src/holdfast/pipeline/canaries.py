"""``probes.canaries``: random texts planted in the training part, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.wording import counted
from holdfast.data.added import Added, added_texts
from holdfast.data.chat import form_of
from holdfast.data.table import Table
from holdfast.know.memory.canaries import (
    Canaries,
    Canary,
    canary_block,
    labelled_canaries,
    repeated,
    written_canaries,
)
from holdfast.pipeline.ready import Prepared

if TYPE_CHECKING:
    from holdfast.pipeline.ready import Fitted

ORIGIN = "canary"
KEY = "probes.canaries"


def canaries_of(prepared: Prepared) -> Canaries | None:
    """What is planted, by the recipe alone and the words of all rows: the same in every fit."""
    recipe = prepared.recipe
    count = recipe.probes.canaries
    if not count:
        return None
    if recipe.task == "causal-lm":
        return written_canaries(count, recipe.seed)
    one_class = prepared.rows.columns.label_kind in (None, "class")
    if recipe.task != "text-classification" or not one_class or prepared.rows.has_pairs:
        rule = "can be planted among single texts with one class each, and among the rows of a "
        task = recipe.task if one_class else f"{recipe.task} ({prepared.rows.columns.label_kind})"
        raise RecipeError(KEY, f"{rule}causal language model", task, "Leave it out.")
    texts = prepared.rows.column("text")
    return labelled_canaries(texts, len(prepared.rows.classes), count, recipe.seed)


def with_canaries(prepared: Prepared) -> Prepared:
    """What is prepared, with its canaries among the rows that every fit learns from. They are in no
    table: nothing is divided, chosen, measured or scored on them."""
    canaries = canaries_of(prepared)
    if canaries is None:
        return prepared
    rows = [canaries.planted[at] for at in repeated(canaries)]
    table = table_of(prepared.rows, rows)
    prepared = prepared.extended(Added(table, np.ones(len(rows)), (ORIGIN,) * len(rows)))
    because = (
        f"random texts, planted 1, 4 and 16 times: {counted(len(rows), 'row')} that updates learn "
        "beside the training rows; result.json lists them with how well each was kept"
    )
    told = Decision("canaries", counted(len(canaries.planted), "text"), because, prominent=True)
    return replace(prepared, decisions=(*prepared.decisions, told))


def table_of(like: Table, canaries: Sequence[Canary]) -> Table:
    """Canaries as rows like those of a table, numbered −1, −2, …"""
    texts, labels = [c.text for c in canaries], [c.label for c in canaries]
    if "turns" not in like.rows.column_names:
        return added_texts(like, texts, labels, origin=ORIGIN).table
    import datasets

    form = form_of(like)
    plain = form == "text"
    turns = [
        []
        if plain
        else [
            {"role": "user", "content": f"{c.text} …?"},
            {"role": "assistant", "content": f"{c.text} {c.answer}."},
        ]
        for c in canaries
    ]
    columns: dict[str, Any] = {
        "row": (-1 - np.arange(len(canaries))).tolist(),
        "text": [f"{c.text} {c.answer}." if plain else f"{c.text} …?" for c in canaries],
        "turns": [json.dumps(one) for one in turns],
        "label": [0] * len(canaries),
        "form": [form] * len(canaries),
    }
    rows = datasets.Dataset.from_dict(columns)
    return replace(like, rows=rows, source="", source_rows=0, findings=(), decisions=())


def exposed(fitted: Fitted) -> dict[str, Any] | None:
    """``canaries`` of the memory block, by the losses of the kept state on what was planted and on
    others; ``None`` without any."""
    prepared = fitted.ready.prepared
    canaries = canaries_of(prepared)
    if canaries is None:
        return None
    count = len(canaries.planted)
    table = table_of(prepared.rows, [*canaries.planted, *canaries.others])
    examples: Any = fitted.encode(table)
    losses = _by_rows(table, np.asarray(examples.rows), fitted.measure(examples)[0])
    names = prepared.rows.classes if fitted.recipe.task == "text-classification" else ()
    return canary_block(canaries, losses[:count], losses[count:], names)


def _by_rows(table: Table, rows: Ints, losses: Floats) -> Floats:
    found = np.full(len(table), np.inf)
    found[table.places(rows)] = losses
    return found
