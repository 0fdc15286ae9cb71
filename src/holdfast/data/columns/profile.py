"""What a column looks like, from a sample spread over the whole source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.data.raw import Kind, Raw

_SAMPLE_PARTS = 20
_PART_ROWS = 1_000
NUMBER = r"^\s*[-+]?(\d+([.,]\d+)*|[.,]\d+)([eE][-+]?\d+)?\s*%?\s*$"


@dataclass(frozen=True, slots=True)
class Profile:
    """``filled`` values of ``rows`` sampled; of the filled ones, how many are ``distinct``, the
    mean number of ``words``, and whether all are ``numeric``."""

    name: str
    rows: int
    filled: int
    distinct: int
    words: float
    numeric: bool
    kinds: frozenset[Kind]

    @property
    def wordy(self) -> bool:
        """Whether this could be a column of texts: three words or more, mostly different."""
        return self.words >= 3 and self.distinct > 0.5 * self.filled

    @property
    def repeats(self) -> bool:
        """Whether this could be a column of classes: few short values, more than one."""
        few = self.distinct <= max(2, min(self.filled // 3, 200))
        return self.distinct > 1 and few and self.words <= 4

    @property
    def label_rank(self) -> tuple[bool, bool, bool, int]:
        """Ascending from the likeliest column of classes: values that differ and come again, words
        before numbers, the fewer values the likelier."""
        return self.distinct < 2, 2 * self.distinct > self.filled, self.numeric, self.distinct


def profile(raw: Raw) -> dict[str, Profile]:
    """A profile of every column that holds plain values."""
    names = [name for name in raw.names if "nested" not in raw.kinds.get(name, set())]
    parts = pa.Table.from_batches(list(_sample(raw)), schema=raw.table.schema)
    return {name: _profile(raw, name, parts[name]) for name in names}


def _sample(raw: Raw) -> Iterator[pa.RecordBatch]:
    batches = [batch for batch in raw.table.to_batches() if batch.num_rows]
    # Spread over the source, which may be sorted.
    step = max(1, len(batches) // _SAMPLE_PARTS)
    for batch in batches[::step]:
        yield batch.slice(0, max(_PART_ROWS, 1 + 20_000 // max(1, len(batches))))


def _profile(raw: Raw, name: str, values: pa.ChunkedArray) -> Profile:
    kept = present(values)
    words = pc.mean(pc.count_substring_regex(kept, r"\S+")).as_py() or 0.0
    numeric = bool(len(kept)) and bool(pc.all(pc.match_substring_regex(kept, NUMBER)).as_py())
    return Profile(
        name,
        len(values),
        len(kept),
        int(pc.count_distinct(kept).as_py()),
        float(words),
        numeric,
        frozenset(raw.kinds.get(name, set())),
    )


def present(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values that are not missing: null, empty and white space alone are."""
    return values.filter(pc.invert(is_missing(values)))


def is_missing(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Where a value is missing: null, empty or white space alone. ``NA``, ``null`` and the like,
    written out as text, are not missing: they may be words."""
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)
