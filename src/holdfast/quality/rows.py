"""Walking over a table a batch at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from holdfast.core.records import Ints
from holdfast.data.table import Table
from holdfast.data.texts.normal import normal_text

_BATCH_ROWS = 10_000


def texts(table: Table) -> Iterator[tuple[int, list[str]]]:
    """The position of each batch's first row, and its texts (pairs with a line break between)."""
    rows = table.rows.with_format("arrow")
    for start in range(0, len(table), _BATCH_ROWS):
        batch = rows[start : start + _BATCH_ROWS]
        found = batch["text"].to_pylist()
        if table.has_pairs:
            pairs = zip(found, batch["text_pair"].to_pylist(), strict=True)
            found = [f"{first}\n{second}" for first, second in pairs]
        yield start, found


def normal_pair(text: str) -> str:
    """The text as ``normal_text`` has it, each part of a pair by itself."""
    return "\n".join(normal_text(part) for part in text.split("\n"))


def class_counts(table: Table) -> Ints:
    """Rows of each class, [classes]; rows without a known label are not counted."""
    labels = table.column("label")
    # −1 is a row whose label is not known.
    return np.bincount(labels[labels >= 0], minlength=len(table.classes))
