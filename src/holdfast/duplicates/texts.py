"""The texts by which rows are compared with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.data.table import Table
from holdfast.duplicates.normalise import PAIR_MARK, to_arrow


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
        texts: list[str] = self.arrow(begin, end).to_pylist()
        return texts

    def arrow(self, begin: int, end: int) -> Any:
        """The same slice as an Arrow array of large strings: no Python string is made of any."""
        parts = list(self._parts(begin, end))
        return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())

    def _parts(self, begin: int, end: int) -> Iterator[Any]:
        for table in self._tables:
            if begin < min(end, len(table)):
                yield _read(table, begin, min(end, len(table)))
            begin, end = max(0, begin - len(table)), max(0, end - len(table))


class ArrowTexts(Sequence[str]):
    """The texts of an Arrow array or of a chunked one, which may be memory-mapped."""

    def __init__(self, strings: pa.Array) -> None:
        self._strings = strings

    def __len__(self) -> int:
        return len(self._strings)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        found: str | list[str] = (
            self._strings[index].as_py()
            if isinstance(index, int)
            else self._strings[index].to_pylist()
        )
        return found

    def arrow(self, begin: int, end: int) -> Any:
        """A slice as one Arrow array of large strings."""
        return _whole(self._strings[begin:end])


def arrow_slice(texts: Sequence[str], begin: int, end: int) -> Any:
    """Texts as one Arrow array of large strings, without Python strings where they are Arrow's."""
    if isinstance(texts, RowTexts | ArrowTexts):
        return texts.arrow(begin, end)
    return to_arrow(list(texts[begin:end]))


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
