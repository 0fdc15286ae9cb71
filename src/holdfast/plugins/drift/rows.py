"""What drift is looked for in: rows of any task as arrays, and the rows that they are held against.

A **reference** is what the model says of rows that it did not learn from, its validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class DriftRows:
    """``n`` rows in the order in which they came, with what is known of each.

    ``vectors`` [n, d] are what the model's last layer reads, or what stands for it; ``answers`` [n]
    indices of classes (−1: none given), ``numbers`` other facts of a row and its answer by their
    names, [n] each, NaN where unknown: ``confidence`` in [0, 1], lengths, a predicted number.
    ``texts`` [n] are there where they may be looked at; ``names`` [n] say which row each is.
    """

    n: int
    vectors: Floats | None = None
    answers: Ints | None = None
    numbers: Mapping[str, Floats] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        given = (self.vectors, self.answers, self.texts, self.names, *self.numbers.values())
        if any(one is not None and len(one) != self.n for one in given):
            found = [None if one is None else len(one) for one in given]
            raise Defect("rows", f"need {self.n} of everything", found)

    def __len__(self) -> int:
        return self.n

    def take(self, at: Ints | slice) -> DriftRows:
        """Some of the rows, by position."""
        where = np.arange(self.n)[at]
        return DriftRows(
            len(where),
            None if self.vectors is None else self.vectors[where],
            None if self.answers is None else self.answers[where],
            {name: values[where] for name, values in self.numbers.items()},
            None if self.texts is None else tuple(self.texts[i] for i in where),
            None if self.names is None else tuple(self.names[i] for i in where),
        )


def joined(parts: Sequence[DriftRows]) -> DriftRows:
    """Rows after one another; what one of them lacks, all do."""
    if len(parts) == 1:
        return parts[0]
    vectors = [one.vectors for one in parts if one.vectors is not None]
    answers = [one.answers for one in parts if one.answers is not None]
    texts = [one.texts for one in parts if one.texts is not None]
    names = [one.names for one in parts if one.names is not None]
    known = [name for name in parts[0].numbers if all(name in one.numbers for one in parts)]
    whole = len(parts)
    return DriftRows(
        sum(map(len, parts)),
        np.concatenate(vectors) if len(vectors) == whole else None,
        np.concatenate(answers) if len(answers) == whole else None,
        {name: np.concatenate([one.numbers[name] for one in parts]) for name in known},
        tuple(text for one in texts for text in one) if len(texts) == whole else None,
        tuple(name for one in names for name in one) if len(names) == whole else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What arriving rows are held against: ``rows``, whether each answer is ``right`` [n] (1 or 0,
    NaN where that is not known; ``None`` where answers are not right or wrong), the names of the
    ``classes``, how many of ``told_of`` texts hold each word (``words``), and where the rows come
    from, in words (``what``)."""

    rows: DriftRows
    classes: tuple[str, ...] = ()
    right: Floats | None = None
    words: Mapping[str, int] = field(default_factory=dict)
    told_of: int = 0
    what: str = "validation rows"

    def __len__(self) -> int:
        return len(self.rows)

    def of_traffic(self, rows: DriftRows, words: Mapping[str, int], what: str) -> Reference:
        """Arrived rows as what later ones are held against: whether they were right is unknown."""
        return replace(self, rows=rows, right=None, words=words, told_of=len(rows), what=what)
