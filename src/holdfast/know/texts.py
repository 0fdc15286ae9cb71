"""The texts of a table's rows as a person would read them, whatever the task."""

from __future__ import annotations

import json

from holdfast.data.table import Table

PAIR = " ⟂ "


def read_texts(table: Table) -> tuple[str, ...] | None:
    """What a model is given of each row, [n]: its text, the two of a pair with a mark between, its
    words joined, or the last question of a chat. ``None`` for pictures."""
    names = table.rows.column_names
    if "tokens" in names:
        return tuple(" ".join(words) for words in table.column("tokens"))
    if "turns" in names and any(table.column("turns")):
        texts = table.column("text")
        turns = table.column("turns")
        return tuple(
            _question(cell) if cell else text for cell, text in zip(turns, texts, strict=True)
        )
    if "text" not in names:
        return None
    if not table.has_pairs:
        return tuple(table.column("text"))
    pairs = zip(table.column("text"), table.column("text_pair"), strict=True)
    return tuple(f"{one}{PAIR}{two}" for one, two in pairs)


def _question(cell: str) -> str:
    asked = [turn["content"] for turn in json.loads(cell) if turn["role"] == "user"]
    return asked[-1] if asked else ""
