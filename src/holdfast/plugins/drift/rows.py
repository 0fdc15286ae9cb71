"""What drift is looked for in: rows of any task as arrays, and the rows that they are held against.

A **reference** is what the model says of rows that it did not learn from, its validation rows. It
is kept as a file of arrays, so that a server needs nothing but the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints

FORMAT = 1
_NUMBER = "number:"


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

    def last(self, most: int) -> DriftRows:
        """The last of the rows, ``most`` at most."""
        return self.take(slice(max(0, self.n - most), None))


def joined(parts: Sequence[DriftRows]) -> DriftRows:
    """Rows after one another; what one of them lacks, all do."""
    if len(parts) == 1:
        return parts[0]

    def arrays(name: str) -> Any:
        given = [getattr(one, name) for one in parts]
        return None if any(one is None for one in given) else np.concatenate(given)

    def words(name: str) -> tuple[str, ...] | None:
        given = [getattr(one, name) for one in parts]
        return None if any(one is None for one in given) else tuple(x for one in given for x in one)

    known = [name for name in parts[0].numbers if all(name in one.numbers for one in parts)]
    numbers = {name: np.concatenate([one.numbers[name] for one in parts]) for name in known}
    n = sum(map(len, parts))
    return DriftRows(
        n, arrays("vectors"), arrays("answers"), numbers, words("texts"), words("names")
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

    def of_traffic(self, rows: DriftRows, what: str) -> Reference:
        """Arrived rows as what later ones are held against: whether they were right is unknown."""
        return replace(self, rows=rows, right=None, words={}, told_of=len(rows), what=what)


def to_arrays(reference: Reference, words: Floats | None, mark: str) -> dict[str, npt.NDArray[Any]]:
    """Its arrays by name; ``words`` [n, d] are vectors of words, ``mark`` says of which run it is.
    Vectors are float16; no text is among them, and words only where three rows hold them."""
    rows = reference.rows
    facts = {
        "format": FORMAT,
        "mark": mark,
        "classes": list(reference.classes),
        "words": dict(reference.words),
        "told_of": reference.told_of,
        "what": reference.what,
        "n": len(rows),
    }
    known = {
        "vectors": (rows.vectors, np.float16),
        "word vectors": (words, np.float16),
        "answers": (rows.answers, np.int64),
        "right": (reference.right, np.float32),
        **{_NUMBER + name: (x, np.float64) for name, x in rows.numbers.items()},
    }
    written = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8)
    arrays = {name: x.astype(kind) for name, (x, kind) in known.items() if x is not None}
    return {"facts": written, **arrays}


def of_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Reference, Floats | None, str]:
    """The reference, the vectors of its words, and of which run it is. Raises ``ValueError`` for
    arrays of another form."""

    def floats(name: str) -> Floats | None:
        given = arrays.get(name)
        return None if given is None else given.astype(np.float64)

    try:
        facts = json.loads(bytes(arrays["facts"]).decode())
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        numbers = {k[len(_NUMBER) :]: x for k, x in arrays.items() if k.startswith(_NUMBER)}
        rows = DriftRows(int(facts["n"]), floats("vectors"), arrays.get("answers"), numbers)
        reference = Reference(
            rows,
            tuple(facts["classes"]),
            floats("right"),
            facts["words"],
            int(facts["told_of"]),
            str(facts["what"]),
        )
        return reference, floats("word vectors"), str(facts["mark"])
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def unit(vectors: Any) -> npt.NDArray[np.float64]:
    """Vectors [n, d] of length 1, to the three digits that a reference keeps: what was written
    down and what arrives are then the same where rows are. One that is 0 or not finite stays so."""
    given = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    return (given / np.where(lengths > 0, lengths, 1.0)).astype(np.float16).astype(np.float64)
