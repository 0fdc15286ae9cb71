"""The texts by which rows are compared with others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.data.table import Table
from holdfast.duplicates.normalise import PAIR_MARK, to_arrow


class BlockTexts(Sequence[str]):
    """Texts that are read from Arrow a slice of rows at a time, so that memory stays bounded."""

    @abstractmethod
    def arrow(self, begin: int, end: int) -> Any:
        """A slice as one Arrow array of large strings: no Python string is made of any."""

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
        texts: list[str] = self.arrow(begin, end).to_pylist()
        return texts


class RowTexts(BlockTexts):
    """The texts of one or more tables, one table after the other. For pairs both texts, with a mark
    between them."""

    def __init__(self, *tables: Table) -> None:
        self._tables = tables

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def arrow(self, begin: int, end: int) -> Any:
        """See ``BlockTexts.arrow``."""
        parts = [pa.array([], pa.large_string())]
        for table in self._tables:
            if begin < min(end, len(table)):
                parts.append(_read(table, begin, min(end, len(table))))
            begin, end = max(0, begin - len(table)), max(0, end - len(table))
        return pa.concat_arrays(parts)


class ArrowTexts(BlockTexts):
    """The texts of an Arrow array or of a chunked one, which may be memory-mapped."""

    def __init__(self, strings: pa.Array) -> None:
        self._strings = strings

    def __len__(self) -> int:
        return len(self._strings)

    def arrow(self, begin: int, end: int) -> Any:
        """See ``BlockTexts.arrow``."""
        return _whole(self._strings[begin:end])


def arrow_slice(texts: Sequence[str], begin: int, end: int) -> Any:
    """Texts as one Arrow array of large strings, without Python strings where they are Arrow's."""
    if isinstance(texts, BlockTexts):
        return texts.arrow(begin, end)
    return to_arrow(texts[begin:end])


def _read(table: Table, begin: int, end: int) -> Any:
    rows = table.rows.with_format("arrow")[begin:end]
    if not table.has_pairs:
        return _whole(rows["text"])
    return pc.binary_join_element_wise(
        _whole(rows["text"]),
        _whole(rows["text_pair"]),
        pa.scalar(f" {PAIR_MARK} ", pa.large_string()),
    )


def _whole(strings: pa.Array | pa.ChunkedArray) -> pa.Array:
    # One buffer of 32-bit offsets holds 2 GB: longer slices are wider before they are one.
    wide = strings.cast(pa.large_string())
    if isinstance(wide, pa.ChunkedArray):
        wide = wide.combine_chunks() if wide.num_chunks != 1 else wide.chunk(0)
    return wide
