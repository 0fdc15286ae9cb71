"""What conditions read of rows: words, forms, language, side columns, place among the topics."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from holdfast.analyses.slices.topics import Partition
from holdfast.augment.texts.words import is_negation, split
from holdfast.core.records import Floats, Ints
from holdfast.data.texts.language import language_of

# Of a text that is longer its beginning is read.
MOST_WORDS = 2_000
LETTERS, SURE = 40, 0.9
_LETTER = re.compile(r"[^\W\d_]")
FORMS: Mapping[str, Callable[[str], bool]] = {
    "a number": lambda text: any(letter.isdigit() for letter in text),
    "a question mark": lambda text: "?" in text,
    "an exclamation mark": lambda text: "!" in text,
    "a link": lambda text: "http" in text or "www." in text,
    "a letter beyond ASCII": lambda text: any(c.isalpha() and not c.isascii() for c in text),
    "no small letter": lambda text: text.upper() == text and any(c.isalpha() for c in text),
    "a negation": lambda text: any(map(is_negation, split(text).words[:MOST_WORDS])),
}
Vectors = Callable[[], Floats]


@dataclass(frozen=True, eq=False)
class RowFacts:
    """Facts of ``n`` rows, each worked out when it is first asked for.

    ``texts`` [n], or ``None`` where rows are no texts; ``columns`` by name, [n] each: what stands
    beside the text in the source, as read (``None`` where a cell is empty); ``vectors`` gives
    [n, d] in the space of the topics, or ``None`` where there is none.
    """

    n: int
    texts: tuple[str, ...] | None = None
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    vectors: Vectors | None = None
    _parts: dict[int, Ints] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.n

    @cached_property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The words of each text, in small letters."""
        texts = self.texts or ("",) * self.n
        return tuple(tuple(w.casefold() for w in split(t).words[:MOST_WORDS]) for t in texts)

    @cached_property
    def grams(self) -> tuple[frozenset[str], ...]:
        """The words and pairs of neighbouring words of each text."""
        return tuple(frozenset([*row, *map(" ".join, pairwise(row))]) for row in self.words)

    @cached_property
    def lengths(self) -> Ints:
        """Words of each text."""
        return np.array([len(row) for row in self.words], dtype=np.int64)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """ISO 639 codes; empty below 40 letters or where py3langid is not sure (0.9)."""
        return tuple(map(_language, self.texts or ("",) * self.n))

    @cached_property
    def space(self) -> Floats | None:
        """The rows in the space of the topics [n, d]."""
        return None if self.vectors is None else self.vectors()

    def topic_of(self, made: Partition) -> Ints:
        """Which part of a partition each row is in, [n]."""
        assert self.space is not None
        if id(made) not in self._parts:
            self._parts[id(made)] = made.nearest(self.space)
        return self._parts[id(made)]

    def numbers(self, column: str) -> Floats:
        """A column as numbers [n], NaN where a cell is none."""
        cells = self.columns.get(column, (None,) * self.n)
        return np.array([_number(cell) for cell in cells])


def _language(text: str) -> str:
    if len(_LETTER.findall(text[:400])) < LETTERS:
        return ""
    code, sure = language_of(text[:400])
    return code if sure >= SURE else ""


def _number(cell: object) -> float:
    if isinstance(cell, bool) or cell is None:
        return float("nan")
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
