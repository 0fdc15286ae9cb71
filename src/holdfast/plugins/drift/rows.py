"""Drift data: rows of any task as arrays, their monitored statistics and words, and the reference.

A **reference** holds the model's predictions of rows that it was not trained on: its validation
rows, or the test rows of a cross-fitted run. It is stored as a file of arrays, so that a server
needs only the run's folder.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints, unit_rows

FORMAT = 1
_NUMBER = "number:"


@dataclass(frozen=True, slots=True, eq=False)
class DriftRows:
    """``n`` rows in the order in which they arrived, with what is known of each.

    ``vectors`` [n, d] are the inputs of the model's last layer, or word vectors in their place.
    ``answers`` [n] are indices of predicted classes (−1: no prediction). ``numbers`` are the
    monitored statistics by name, [n] each, NaN where unknown: ``confidence`` in [0, 1], lengths, a
    predicted number. ``texts`` [n] are given where they may be shown; ``names`` [n] identify the
    rows.
    """

    n: int
    vectors: Floats | None = None
    answers: Ints | None = None
    numbers: Mapping[str, Floats] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        columns = (self.vectors, self.answers, self.texts, self.names, *self.numbers.values())
        if any(one is not None and len(one) != self.n for one in columns):
            lengths = [None if one is None else len(one) for one in columns]
            raise Defect("rows", f"need {self.n} of everything", lengths)

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

    def last(self, count: int) -> DriftRows:
        """The last of the rows, ``count`` at most."""
        return self.take(slice(max(0, self.n - count), None))


def concatenate_rows(parts: Sequence[DriftRows]) -> DriftRows:
    """Concatenate rows. What one part lacks is left out of the result."""
    if len(parts) == 1:
        return parts[0]

    def concatenate(name: str) -> Any:
        columns = [getattr(one, name) for one in parts]
        return None if any(one is None for one in columns) else np.concatenate(columns)

    def chain(name: str) -> tuple[str, ...] | None:
        columns = [getattr(one, name) for one in parts]
        return (
            None
            if any(one is None for one in columns)
            else tuple(x for one in columns for x in one)
        )

    known = [name for name in parts[0].numbers if all(name in one.numbers for one in parts)]
    numbers = {name: np.concatenate([one.numbers[name] for one in parts]) for name in known}
    n = sum(map(len, parts))
    return DriftRows(
        n, concatenate("vectors"), concatenate("answers"), numbers, chain("texts"), chain("names")
    )


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The rows that arriving rows are compared with: ``rows``; ``correct`` [n], whether each
    prediction is correct (1 or 0, NaN where unknown; ``None`` where predictions are not correct or
    wrong); the names of the ``classes``; in how many of ``n_texts`` texts each word occurs
    (``word_counts``); and ``description``, where the rows come from."""

    rows: DriftRows
    classes: tuple[str, ...] = ()
    correct: Floats | None = None
    word_counts: Mapping[str, int] = field(default_factory=dict)
    n_texts: int = 0
    description: str = "validation rows"

    def __len__(self) -> int:
        return len(self.rows)

    def of_traffic(self, rows: DriftRows, description: str) -> Reference:
        """Arrived rows as the reference for later ones. Whether their predictions are correct is
        unknown."""
        return replace(
            self,
            rows=rows,
            correct=None,
            word_counts={},
            n_texts=len(rows),
            description=description,
        )


def to_arrays(reference: Reference, words: Floats | None, mark: str) -> dict[str, npt.NDArray[Any]]:
    """The reference as arrays by name. ``words`` [n, d] are word vectors, ``mark`` identifies the
    run. Vectors are float16. No text is stored, and only words that at least three rows contain."""
    rows = reference.rows
    facts = {
        "format": FORMAT,
        "mark": mark,
        "classes": list(reference.classes),
        "words": dict(reference.word_counts),
        "told_of": reference.n_texts,
        "what": reference.description,
        "n": len(rows),
    }
    known = {
        "vectors": (rows.vectors, np.float16),
        "word vectors": (words, np.float16),
        "answers": (rows.answers, np.int64),
        "right": (reference.correct, np.float32),
        **{_NUMBER + name: (x, np.float64) for name, x in rows.numbers.items()},
    }
    facts_bytes = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8)
    arrays = {name: x.astype(dtype) for name, (x, dtype) in known.items() if x is not None}
    return {"facts": facts_bytes, **arrays}


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Reference, Floats | None, str]:
    """The reference, its word vectors, and the mark of its run. Raises ``ValueError`` for arrays of
    another format."""

    def floats(name: str) -> Floats | None:
        values = arrays.get(name)
        return None if values is None else values.astype(np.float64)

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


def unit_vectors(vectors: Any) -> npt.NDArray[np.float64]:
    """Vectors [n, d] scaled to length 1, in the precision of a stored reference (float16), so that
    equal rows have equal vectors. A vector that is 0 or not finite stays so."""
    rows = unit_rows(np.asarray(vectors, dtype=np.float64))
    return rows.astype(np.float16).astype(np.float64)


CONFIDENCE, WORDS = "confidence", "words"
UNPREDICTED = "the reference rows have no predictions by this model"


def monitored_statistics(
    texts: Sequence[str] | None,
    predictions: Sequence[object],
    confidence: Sequence[float | None],
    outside: object = None,
) -> dict[str, Floats]:
    """The monitored statistics by name, [n] each, NaN where unknown:

    - ``confidence`` of the prediction (for generated text the geometric mean of the tokens'
      probabilities, that is 1 ÷ perplexity);
    - ``words`` of the input text;
    - for numbers ``answer``; for generated text ``answer words`` and ``repetition``, the share of
      its three-word runs that occurred before; for tags ``tagged``, the share of words with another
      tag than ``outside``; for several labels ``labels``, their number.

    The type of the first known prediction decides which statistics there are. Class names would
    count as generated text, so pass no predictions for a classifier.
    """

    def answers(answer_type: type | UnionType, statistic: Callable[[Any], float | None]) -> Floats:
        values = [statistic(one) if isinstance(one, answer_type) else None for one in predictions]
        return np.array(values, dtype=np.float64)

    statistics: dict[str, Floats] = {}
    if any(one is not None for one in confidence):
        statistics[CONFIDENCE] = np.array(confidence, dtype=np.float64)
    if texts is not None:
        statistics[WORDS] = np.array([_word_count(text) for text in texts], dtype=np.float64)
    first = next((one for one in predictions if one is not None), None)
    if isinstance(first, str):
        statistics["answer words"] = answers(str, _word_count)
        statistics["repetition"] = answers(str, repetition)
    elif isinstance(first, int | float):
        statistics["answer"] = answers(int | float, float)
    elif isinstance(first, list | tuple):
        if outside is None:
            statistics["labels"] = answers(list | tuple, len)
        else:
            statistics["tagged"] = answers(
                list | tuple,
                lambda tags: sum(tag != outside for tag in tags) / len(tags) if tags else None,
            )
    return statistics


def _word_count(text: str) -> int:
    return len(text.split())


def repetition(text: str) -> float:
    """The share of three-word runs that occurred earlier in the text; 0: no repetition."""
    words = text.casefold().split()
    runs = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


HASH_WIDTH = 256
# Longer texts are cut: the beginning shows the topic.
MAX_WORDS = 2000
# A word in fewer rows may name a person, and says nothing about the distribution.
MIN_WORD_ROWS = 3
MAX_KEPT_WORDS = 5000
# The weight of the prior of each word's share, in rows.
PRIOR_ROWS = 10.0
# In standard errors: one word in 30,000 exceeds it by chance, and thousands are tested.
MIN_Z = 4.0
MAX_TERMS = 8
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True, slots=True)
class DriftWord:
    """A word and the shares of new (``now``) and reference rows (``then``) that contain it. ``z``
    is the difference in standard errors, above 0 where the word is more frequent now."""

    word: str
    now: float
    then: float
    z: float


def hashed_word_vectors(texts: Sequence[str]) -> Floats:
    """Signed counts of hashed words [n, 256], log-scaled, each row of length 1 (0 without a word):
    feature hashing, Weinberger and others (0902.2206). It needs no vocabulary, so later texts get
    comparable vectors."""
    vectors = np.zeros((len(texts), HASH_WIDTH))
    for row, text in enumerate(texts):
        for word, n in Counter(_words(text)).items():
            word_hash = zlib.crc32(word.encode())
            vectors[row, word_hash % HASH_WIDTH] += (1 if word_hash & 0x80000000 else -1) * (
                1 + math.log(n)
            )
    return unit_rows(vectors)


def word_row_counts(texts: Sequence[str]) -> dict[str, int]:
    """The number of texts that contain each word, for words in at least ``MIN_WORD_ROWS`` texts,
    the most frequent first."""
    counts = Counter(word for text in texts for word in set(_words(text)))
    common = sorted(((-n, word) for word, n in counts.items() if n >= MIN_WORD_ROWS))[
        :MAX_KEPT_WORDS
    ]
    return {word: -n for n, word in common}


def changed_words(
    now: Mapping[str, int], rows: int, then: Mapping[str, int], before: int
) -> list[DriftWord]:
    """The words whose frequency changed most, by |z|, at most eight. ``now`` and ``then`` are the
    numbers of texts that contain each word, of ``rows`` new and ``before`` reference texts.

    The log odds of each word with an informative prior, its share in both sets, over its standard
    error (Monroe, Colaresi and Quinn 2008). The prior keeps rare words from ranking first.
    """
    changed = []
    for word in {*now, *then}:
        a, b = now.get(word, 0), then.get(word, 0)
        share = (a + b) / max(1, rows + before)
        if not 0 < share < 1:
            continue
        yes, no = PRIOR_ROWS * share, PRIOR_ROWS * (1 - share)
        gap = math.log((a + yes) / (rows - a + no)) - math.log((b + yes) / (before - b + no))
        error = math.sqrt(1 / (a + yes) + 1 / (b + yes))
        if abs(gap / error) >= MIN_Z:
            changed.append(DriftWord(word, a / max(1, rows), b / max(1, before), gap / error))
    return sorted(changed, key=lambda term: (-abs(term.z), term.word))[:MAX_TERMS]


def _words(text: str) -> list[str]:
    return [match.casefold() for match in _WORD.findall(text)][:MAX_WORDS]
