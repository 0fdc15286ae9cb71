"""The text by which a row is compared with others."""

from __future__ import annotations

from holdfast.data.table import Table
from holdfast.split.normalise import PAIR_MARK


def row_texts(table: Table) -> list[str]:
    """The text of each row; for pairs both texts, with a mark between them."""
    texts: list[str] = table.column("text")
    if not table.has_pairs:
        return texts
    others: list[str] = table.column("text_pair")
    return [f"{a} {PAIR_MARK} {b}" for a, b in zip(texts, others, strict=True)]
