"""The readable texts of a table's rows, and their labels as in the source."""

from __future__ import annotations

import json
from typing import Any, Literal

from holdfast.core.errors import RecipeError
from holdfast.data.chats.chat import read_row_turns
from holdfast.data.table import Table

LabelType = Literal["class", "several", "number", "tags", "text"]


def decode_labels(table: Table) -> list[Any]:
    """The label of each row, [n]: a class (``None`` where unknown), a list of labels or tags, a
    number, or the reference text; ``None`` for rows without labels. Tables store classes, labels
    and tags as indices, which must not be compared with predictions."""
    names = table.rows.column_names
    for column in ("tags", "labels"):
        if column in names:
            return [[table.names[k] for k in row] for row in table.column(column)]
    if "value" in names:
        return [float(value) for value in table.column("value")]
    if "target" in names:
        return list(table.column("target"))
    if "turns" in names:
        return [chat[-1]["content"] if chat else None for chat in read_row_turns(table)]
    if "label" in names and table.classes:
        return [table.classes[k] if k >= 0 else None for k in table.column("label")]
    return [None] * len(table)


PAIR = " ⟂ "


def read_texts(table: Table) -> tuple[str, ...] | None:
    """The input text of each row, [n]: its text, the two texts of a pair with a separator, its
    words joined, or the last user turn of a chat. ``None`` for images."""
    names = table.rows.column_names
    if "tokens" in names:
        return tuple(" ".join(words) for words in table.column("tokens"))
    if "turns" in names and any(table.column("turns")):
        texts = table.column("text")
        turns = table.column("turns")
        return tuple(
            _last_question(cell) if cell else text for cell, text in zip(turns, texts, strict=True)
        )
    if "text" not in names or table.has_images:
        return None
    if not table.has_pairs:
        return tuple(table.column("text"))
    pairs = zip(table.column("text"), table.column("text_pair"), strict=True)
    return tuple(f"{one}{PAIR}{two}" for one, two in pairs)


def _last_question(cell: str) -> str:
    questions = [turn["content"] for turn in json.loads(cell) if turn["role"] == "user"]
    return questions[-1] if questions else ""


def label_type_of(table: Table) -> LabelType:
    """The type of the labels of these rows."""
    names = table.rows.column_names
    for column, label_type in (("tags", "tags"), ("labels", "several"), ("value", "number")):
        if column in names:
            return label_type  # type: ignore[return-value]
    return "text" if "target" in names or "turns" in names else "class"


def labels_of_rows(table: Table) -> list[Any]:
    """The labels as in the source. Raises ``RecipeError`` for plain text, which has none."""
    labels = decode_labels(table)
    if "turns" in table.rows.column_names and None in labels:
        raise RecipeError(
            "compare",
            "is not available for causal-lm on plain text, which has no references to compare with",
            None,
            "Score both with `holdfast evaluate`, which reports the loss per token.",
        )
    return labels


def texts_of_rows(table: Table) -> list[str]:
    """The text of each row that is shown to a reader."""
    names = table.rows.column_names
    if table.has_images:
        return [str(path) for path in table.column("path")]
    if "tokens" in names:
        return [" ".join(words) for words in table.column("tokens")]
    if "turns" in names:
        chats = read_row_turns(table)
        return [chat[-2]["content"] if len(chat) > 1 else "" for chat in chats]
    if "text_pair" in names:
        pairs = zip(table.column("text"), table.column("text_pair"), strict=True)
        return [f"{one} | {two}" for one, two in pairs]
    return list(table.column("text"))
