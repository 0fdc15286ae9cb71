"""Texts without a label, beside the rows of a source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from holdfast.core.errors import RecipeError
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.texts.new_rows import renamed, unlabelled

KEY = "data.unlabelled"


def read_unlabelled(path: str, rows: Table, encoding: str | None) -> Table:
    """The texts of ``path``, in the columns that ``rows`` have theirs in, or in its only one; a
    column of labels is not read, a row without text is not among them.

    Raises ``RecipeError`` where the texts of ``rows`` are pairs, or in no column of ``path``.
    """
    if rows.has_pairs:
        raise RecipeError(KEY, "needs rows of one text each", None, "Leave it out.")
    raw, columns = read_source(path, encoding, None), rows.columns
    if columns.template is None:
        (wanted,) = columns.text
        if wanted not in raw.names and len(raw.names) == 1:
            raw = renamed(raw, (wanted,), raw.names)
    for wanted in columns.text:  # of a template all that it joins
        if wanted not in raw.names:
            rule = f"has no column {wanted!r}, in which the source has its texts"
            remedy = f"Name the column so in {path}."
            raise RecipeError(KEY, rule, ", ".join(raw.names), remedy)
    return replace(unlabelled(raw, columns), source=path)


def refuse_test_rows(path: str, held: str | None) -> None:
    """Refuse to learn from the texts that the honest number is measured on."""
    if held is not None and _same(path, held):
        raise RecipeError(
            KEY,
            "names the test rows: what was learned from their texts is not measured on them",
            path,
            "Name a file of other rows.",
        )


def _same(one: str, other: str) -> bool:
    try:
        return Path(one).resolve() == Path(other).resolve()
    except (OSError, RuntimeError):
        return one == other
