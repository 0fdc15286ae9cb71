"""Profile columns on a sample spread over the source, and compare their names in any spelling:
``Review Text``, ``review-text`` and ``reviewText `` are one name.

A *twin* of a column has the same name but for case, spaces and punctuation. A *rival* of the label
is another column that the user may want to predict: its name suggests it and its values repeat.
Where the label's own name is ambiguous (``label`` is not; ``rating`` is, if there is also
``recommended``), rivals lead to an error that asks the user. A column with the same information one
to one (``spam`` and ``spam_id``) is not a rival.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.data.raw import ColumnType, Raw

_SAMPLE_PARTS = 20
_PART_ROWS = 1_000
NUMBER = r"^\s*[-+]?(\d+([.,]\d+)*|[.,]\d+)([eE][-+]?\d+)?\s*%?\s*$"


@dataclass(frozen=True, slots=True)
class Profile:
    """A column in a sample of ``rows`` rows: the number of ``filled`` cells; among these, how many
    values are ``distinct``, the mean number of ``words``, and whether all are ``numeric``."""

    name: str
    rows: int
    filled: int
    distinct: int
    words: float
    numeric: bool
    column_types: frozenset[ColumnType]

    @property
    def wordy(self) -> bool:
        """Whether this could be a column of texts: three words or more, mostly distinct."""
        return self.words >= 3 and self.distinct > 0.5 * self.filled

    @property
    def repeats(self) -> bool:
        """Whether this could be a column of classes: few distinct short values, more than one."""
        few = self.distinct <= max(2, min(self.filled // 3, 200))
        return self.distinct > 1 and few and self.words <= 4

    @property
    def label_rank(self) -> tuple[bool, bool, bool, int]:
        """Sort key for the label, the likeliest column first: values that repeat, words before
        numbers, fewer distinct values."""
        return self.distinct < 2, 2 * self.distinct > self.filled, self.numeric, self.distinct


def profile_columns(raw: Raw) -> dict[str, Profile]:
    """A profile of every column that holds plain values."""
    names = [name for name in raw.names if "nested" not in raw.column_types.get(name, set())]
    parts = pa.Table.from_batches(list(_sample(raw)), schema=raw.table.schema)
    return {name: _profile(raw, name, parts[name]) for name in names}


def _sample(raw: Raw) -> Iterator[pa.RecordBatch]:
    batches = [batch for batch in raw.table.to_batches() if batch.num_rows]
    # Spread over the source, since it may be sorted.
    step = max(1, len(batches) // _SAMPLE_PARTS)
    for batch in batches[::step]:
        yield batch.slice(0, max(_PART_ROWS, 1 + 20_000 // max(1, len(batches))))


def _profile(raw: Raw, name: str, values: pa.ChunkedArray) -> Profile:
    filled_values = present_values(values)
    words = pc.mean(pc.count_substring_regex(filled_values, r"\S+")).as_py() or 0.0
    numeric = bool(len(filled_values)) and bool(
        pc.all(pc.match_substring_regex(filled_values, NUMBER)).as_py()
    )
    return Profile(
        name,
        len(values),
        len(filled_values),
        int(pc.count_distinct(filled_values).as_py()),
        float(words),
        numeric,
        frozenset(raw.column_types.get(name, set())),
    )


def present_values(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values that are not missing: not null, empty or only white space."""
    return values.filter(pc.invert(is_missing(values)))


def is_missing(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Mask of missing values: null, empty or only white space. ``NA``, ``null`` and the like,
    written as text, are not missing: they may be words."""
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)


_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[\W_]+")


def split_names(names: str) -> tuple[str, ...]:
    """Split a list of names at white space."""
    return tuple(names.split())


def split_pairs(pairs: str) -> tuple[tuple[str, str], ...]:
    """Split a list of pairs of names, ``first:second``, at white space."""
    return tuple((one, two) for one, _, two in (pair.partition(":") for pair in split_names(pairs)))


# Names that identify the label.
LABEL_NAMES = ("label", "labels", "class", "target", "y", "gold_label", "is_duplicate")
# Words that suggest, within a name, a column to predict.
OUTCOME_WORDS = frozenset(
    split_names(
        """
        label class category target sentiment intent topic polarity stance emotion genre
        rating stars score grade recommend recommended recommends recommendation satisfied
        satisfaction nps csat priority severity urgency urgent type queue department outcome
        verdict decision churn churned converted approved accepted rejected escalated spam
        toxic toxicity hate hateful offensive sarcasm sarcastic irony fraud fraudulent fake
        complaint helpful
        """
    )
)
SAMPLE = 20_000


def column_key(name: str) -> str:
    """The words of a name in lower case, joined by underscores.

    >>> column_key(" Review Text"), column_key("reviewText"), column_key("review")
    ('review_text', 'review_text', 'review')
    """
    return "_".join(_words(name)) or name.strip().casefold()


def columns_by_key(profiles: Mapping[str, Profile]) -> dict[str, str]:
    """The column for each key; of twins the one with more filled cells, then with more words."""
    column_of_key: dict[str, str] = {}
    for name, column in profiles.items():
        other = profiles.get(column_of_key.get(column_key(name), ""))
        if other is None or (column.filled, column.words) > (other.filled, other.words):
            column_of_key[column_key(name)] = name
    return column_of_key


def twins(profiles: Mapping[str, Profile], name: str) -> list[str]:
    """The columns with the same name as this one but for case, spaces and punctuation."""
    return [n for n in profiles if n != name and column_key(n) == column_key(name)]


def rival_labels(raw: Raw, profiles: Mapping[str, Profile], label: str) -> list[str]:
    """The other columns that could be the label."""
    return [
        name
        for name, column in profiles.items()
        if name != label
        and column.repeats
        and (OUTCOME_WORDS & set(_words(name)) or column_key(name) == column_key(label))
        and not is_one_to_one(raw, label, name)
    ]


def is_one_to_one(raw: Raw, one: str, other: str) -> bool:
    """Whether the values of two columns correspond one to one."""
    # If there are as many pairs as values in each column, each value has one partner.
    part = pa.table({"a": raw.table[one], "b": raw.table[other]}).slice(0, SAMPLE)
    pairs = part.group_by(["a", "b"]).aggregate([]).num_rows
    return bool(
        pairs
        == pc.count_distinct(part["a"], mode="all").as_py()
        == pc.count_distinct(part["b"], mode="all").as_py()
    )


def describe_values(raw: Raw, names: Sequence[str]) -> str:
    """``'rating' (5 values: '1', '2', '3', …); 'recommended' (2 values: 'no', 'yes')``."""
    return "; ".join(_values_in_words(raw, name) for name in names)


def _values_in_words(raw: Raw, name: str) -> str:
    values = pc.drop_null(pc.unique(raw.table[name].slice(0, SAMPLE))).to_pylist()
    shown = ", ".join(repr(value[:20]) for value in sorted(values)[:3])
    more = ", …" if len(values) > 3 else ""
    return f"{name!r} ({len(values)} value{'s' * (len(values) != 1)}: {shown}{more})"


def _words(name: str) -> list[str]:
    return [word for word in _SEPARATORS.split(_CAMEL_CASE.sub("_", name).casefold()) if word]
