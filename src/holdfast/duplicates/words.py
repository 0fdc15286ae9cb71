"""Texts for comparison, read block by block, and bags of words in compact arrays.

A word is a string between spaces, without its punctuation. Words are numbered by rarity (0 is the
rarest; ties by a hash of the word), so each row's sorted bag begins with its rarest words and
nothing depends on the order of the rows. A word takes four bytes, whatever its length.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.data.table import Table
from holdfast.duplicates.normalise import (
    PAIR_MARK,
    content_keys,
    fold_texts,
    join_forms,
    spaced_words,
    to_arrow,
)

if TYPE_CHECKING:
    from holdfast.core.records import Ints


class BlockTexts(Sequence[str]):
    """Texts that are read from Arrow slice by slice, so that memory stays bounded."""

    @abstractmethod
    def arrow(self, begin: int, end: int) -> Any:
        """A slice as one Arrow array of large strings, without Python strings."""

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
    """The texts of one or more tables, one table after the other. Text pairs are joined by
    ``PAIR_MARK``."""

    def __init__(self, *tables: Table) -> None:
        self._tables = tables

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def arrow(self, begin: int, end: int) -> Any:
        """See ``BlockTexts.arrow``."""
        parts = [pa.array([], pa.large_string())]
        for table in self._tables:
            if begin < min(end, len(table)):
                parts.append(_arrow_texts(table, begin, min(end, len(table))))
            begin, end = max(0, begin - len(table)), max(0, end - len(table))
        return pa.concat_arrays(parts)


class ArrowTexts(BlockTexts):
    """The texts of an Arrow array or chunked array, which may be memory-mapped."""

    def __init__(self, strings: pa.Array) -> None:
        self._strings = strings

    def __len__(self) -> int:
        return len(self._strings)

    def arrow(self, begin: int, end: int) -> Any:
        """See ``BlockTexts.arrow``."""
        return _as_large_strings(self._strings[begin:end])


def arrow_slice(texts: Sequence[str], begin: int, end: int) -> Any:
    """Texts as one Arrow array of large strings; no Python strings if they come from Arrow."""
    if isinstance(texts, BlockTexts):
        return texts.arrow(begin, end)
    return to_arrow(texts[begin:end])


def _arrow_texts(table: Table, begin: int, end: int) -> Any:
    rows = table.rows.with_format("arrow")[begin:end]
    if not table.has_pairs:
        return _as_large_strings(rows["text"])
    return pc.binary_join_element_wise(
        _as_large_strings(rows["text"]),
        _as_large_strings(rows["text_pair"]),
        pa.scalar(f" {PAIR_MARK} ", pa.large_string()),
    )


def _as_large_strings(strings: pa.Array | pa.ChunkedArray) -> pa.Array:
    # 32-bit offsets allow 2 GB only: cast to 64-bit offsets before combining chunks.
    wide = strings.cast(pa.large_string())
    if isinstance(wide, pa.ChunkedArray):
        wide = wide.combine_chunks() if wide.num_chunks != 1 else wide.chunk(0)
    return wide


I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
BLOCK_TEXTS = 50_000
BLOCK_WORDS = 1 << 21
BLOCK_CHARACTERS = 1 << 23


@dataclass(frozen=True, slots=True)
class HashedTexts:
    """All texts, read once: ``keys`` [n] hash of the normal form; ``contents`` [n] hash of the
    text; ``lengths`` [n] words as written, isolated punctuation included; ``words`` flat word
    numbers in reading order, row i from ``starts[i]`` to ``starts[i + 1]``; ``vocabulary`` the
    words."""

    keys: U64
    contents: U64
    lengths: I32
    words: I32
    starts: I64
    vocabulary: list[str]


@dataclass(frozen=True, slots=True)
class Bags:
    """Rows (one per distinct normal form) as word numbers by rarity: ``sequence`` in reading order,
    ``bag`` sorted. The words with numbers below ``once`` occur only once in all rows."""

    sequence: I32
    bag: I32
    starts: I64
    lengths: I32
    once: int
    vocabulary: list[str]

    @property
    def counts(self) -> I64:
        """The number of words of each row, including repeats, [rows]."""
        return np.diff(self.starts)

    def counts_of(self, rows: I64) -> I64:
        """The number of words of some rows, [len(rows)]."""
        return np.asarray(self.starts[rows + 1] - self.starts[rows])

    def __len__(self) -> int:
        return len(self.lengths)


def read_texts(texts: Sequence[str]) -> HashedTexts:
    """Fold, split and number the words of all texts, in blocks."""
    number_of_word: dict[str, int] = {}
    blocks = [
        _read_block(to_arrow(part), number_of_word)
        for at in range(0, len(texts), BLOCK_TEXTS)
        for part in _in_parts(list(texts[at : at + BLOCK_TEXTS]))
    ]
    if not blocks:
        blocks = [_read_block(to_arrow([]), number_of_word)]
    keys, contents, lengths, words, counts = (
        np.concatenate([block[part] for block in blocks]) for part in range(5)
    )
    return HashedTexts(keys, contents, lengths, words, starts_of(counts), list(number_of_word))


def exact_forms(hashed: HashedTexts) -> tuple[I64, I64]:
    """The number of each text's normal form, by hash [n], and a representative text for each form:
    the one with the most words, then with the lowest content hash."""
    # By content and never by position: the split must not change if a file is sorted.
    order = np.lexsort((hashed.contents, -hashed.lengths.astype(np.int64), hashed.keys))
    keys = hashed.keys[order]
    is_new = run_starts(keys)
    exact = np.empty(len(keys), dtype=np.int64)
    exact[order] = np.cumsum(is_new) - 1
    return exact, order[is_new]


def make_bags(hashed: HashedTexts, rows: I64) -> Bags:
    """The bags of the selected rows, with words numbered by their rarity among these rows."""
    sequence, starts = take_rows(hashed.words, hashed.starts, rows)
    totals = np.bincount(sequence, minlength=len(hashed.vocabulary))
    tie_order = content_keys(pa.array(hashed.vocabulary, pa.large_string()))
    order = np.lexsort((tie_order, totals))
    # The vocabulary covers all texts; words that only other exact duplicates have are dropped.
    order = order[totals[order] > 0]
    rank = np.full(len(hashed.vocabulary), -1, dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    sequence = rank[sequence]
    once = int(np.count_nonzero(totals == 1))
    words = [hashed.vocabulary[number] for number in order]
    bag = sorted_rows(sequence, starts, np.empty_like(sequence))
    return Bags(sequence, bag, starts, hashed.lengths[rows], once, words)


def take_rows(flat: I32, starts: I64, rows: I64) -> tuple[I32, I64]:
    """The selected rows of a ragged array, with their new starts."""
    counts = starts[rows + 1] - starts[rows]
    ends = starts_of(counts)
    selected = np.empty(int(ends[-1]), dtype=flat.dtype)
    for block in row_blocks(ends):
        here = slice(int(ends[block.start]), int(ends[block.stop]))
        selected[here] = flat[spans(starts[rows[block]], counts[block])]
    return selected, ends


def row_blocks(starts: I64) -> Iterator[slice]:
    """Slices of complete rows of about ``BLOCK_WORDS`` words, so that temporaries stay small."""
    row = 0
    while row < len(starts) - 1:
        end = int(np.searchsorted(starts, starts[row] + BLOCK_WORDS, "right")) - 1
        # A row larger than a block is a block of its own.
        end = max(row + 1, end)
        yield slice(row, end)
        row = end


def run_starts(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each row of sorted ``columns`` [n] differs from the one before it [n]."""
    new = np.ones(len(columns[0]), dtype=bool)
    new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return new


def run_lengths(new: npt.NDArray[np.bool_]) -> I64:
    """The length of each run, from ``run_starts``."""
    return np.diff(np.append(np.flatnonzero(new), len(new)))


def spans(firsts: I64, counts: I64) -> I64:
    """``firsts[0], firsts[0] + 1, …`` for ``counts[0]`` numbers, then the next: [sum of counts]."""
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(firsts - ends + counts, counts) + np.arange(total, dtype=np.int64)


def starts_of(counts: Ints) -> I64:
    """The offsets [n + 1] where each row of a ragged array starts and the last ends."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def _in_parts(texts: list[str]) -> Iterator[list[str]]:
    """The texts in parts of about ``BLOCK_CHARACTERS`` characters: words take many times their
    length in memory."""
    begin = size = 0
    for at, text in enumerate(texts):
        size += len(text)
        if size > BLOCK_CHARACTERS:
            yield texts[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(texts):
        yield texts[begin:]


def _read_block(texts: pa.Array, number_of_word: dict[str, int]) -> tuple[U64, U64, I32, I32, I32]:
    fold = fold_texts(texts)
    bare = spaced_words(fold)
    split = pc.utf8_split_whitespace(bare)
    words = split.flatten()
    # Python then handles each distinct word of a block once, not each occurrence.
    encoded = words.dictionary_encode()
    local = np.array(
        [
            number_of_word.setdefault(word, len(number_of_word))
            for word in encoded.dictionary.to_pylist()
        ],
        dtype=np.int32,
    )
    flat = local[encoded.indices.to_numpy()]
    # Splitting at spaces gives an empty word at either end of a text.
    is_word = flat != number_of_word.setdefault("", len(number_of_word))
    rows = np.repeat(np.arange(len(texts)), pc.list_value_length(split).to_numpy())
    counts = np.bincount(rows[is_word], minlength=len(texts)).astype(np.int32)
    # A text in a script without spaces is one written word but many words here.
    lengths = np.maximum(written_words(fold), counts).astype(np.int32)
    keys = content_keys(join_forms(fold, bare))
    return keys, content_keys(texts), lengths, flat[is_word], counts


def written_words(fold: pa.Array) -> I32:
    """The number of words of folded texts as written, isolated punctuation included, [n]."""
    lengths = pc.count_substring_regex(fold, r"[^\s\p{Z}]+").to_numpy()
    return np.asarray(lengths, dtype=np.int32)


def sorted_rows(flat: I32, starts: I64, bag: I32) -> I32:
    """Sort each row of a ragged array into ``bag``, which may be ``flat`` itself."""
    for block in row_blocks(starts):
        counts = np.diff(starts[block.start : block.stop + 1])
        rows = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        part = slice(int(starts[block.start]), int(starts[block.stop]))
        # Row and word in one number: one sort handles all rows of a block.
        bag[part] = (np.sort((rows << 32) | flat[part]) & 0xFFFFFFFF).astype(np.int32)
    return bag
