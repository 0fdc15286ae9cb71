"""The texts by which rows are compared with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from holdfast.copies.normalise import PAIR_MARK
from holdfast.data.table import Table


class RowTexts(Sequence[str]):
    """The texts of one or more tables, one table after the other, read from Arrow when asked for:
    a slice of rows at a time, so that memory stays bounded. For pairs both texts, with a mark
    between them."""

    def __init__(self, *tables: Table) -> None:
        self._tables = tables

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, int):
            at = range(len(self))[index]
            return self[at : at + 1][0]
        begin, end, step = index.indices(len(self))
        if step != 1:
            return [self[at] for at in range(begin, end, step)]
        return [text for part in self._parts(begin, end) for text in part]

    def _parts(self, begin: int, end: int) -> Iterator[list[str]]:
        for table in self._tables:
            if begin < min(end, len(table)):
                yield _read(table, begin, min(end, len(table)))
            begin, end = max(0, begin - len(table)), max(0, end - len(table))


def _read(table: Table, begin: int, end: int) -> list[str]:
    rows = table.rows.with_format("arrow")[begin:end]
    texts: list[str] = rows["text"].to_pylist()
    if not table.has_pairs:
        return texts
    others: list[str] = rows["text_pair"].to_pylist()
    return [f"{a} {PAIR_MARK} {b}" for a, b in zip(texts, others, strict=True)]
