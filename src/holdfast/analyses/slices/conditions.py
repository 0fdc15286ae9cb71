"""Conditions that define a slice, in words and as a mask over the rows of any table; and the row
facts that they read: words, forms, language, other columns, topic."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.augment.texts.word_edits import is_negation, split
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints
from holdfast.data.texts.general import identify_language

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

# Only the beginning of a longer text is read.
MAX_WORDS = 2_000
MIN_LETTERS, MIN_CONFIDENCE = 40, 0.9
_LETTER = re.compile(r"[^\W\d_]")
FORMS: Mapping[str, Callable[[str], bool]] = {
    "a number": lambda text: any(letter.isdigit() for letter in text),
    "a question mark": lambda text: "?" in text,
    "an exclamation mark": lambda text: "!" in text,
    "a link": lambda text: "http" in text or "www." in text,
    "a letter beyond ASCII": lambda text: any(c.isalpha() and not c.isascii() for c in text),
    "no small letter": lambda text: text.upper() == text and any(c.isalpha() for c in text),
    "a negation": lambda text: any(map(is_negation, split(text).words[:MAX_WORDS])),
}
# Stored runs hold the names above; readers see these.
READABLE_FORMS: Mapping[str, str] = {
    "a letter beyond ASCII": "a non-ASCII letter",
    "no small letter": "no lowercase letter",
}
Vectors = Callable[[], Floats]


@dataclass(frozen=True, eq=False)
class RowFacts:
    """Facts of ``n`` rows, each computed when it is first read.

    ``texts`` [n], or ``None`` for rows without texts; ``columns`` by name, [n] each: the other
    columns of the source, as read (``None`` for an empty cell); ``vectors`` gives [n, d] in the
    space of the topics, or is ``None`` if there is none.
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
        """The words of each text, in lowercase."""
        texts = self.texts or ("",) * self.n
        return tuple(tuple(w.casefold() for w in split(t).words[:MAX_WORDS]) for t in texts)

    @cached_property
    def grams(self) -> tuple[frozenset[str], ...]:
        """The words and pairs of neighbouring words of each text."""
        return tuple(frozenset([*row, *map(" ".join, pairwise(row))]) for row in self.words)

    @cached_property
    def lengths(self) -> Ints:
        """Number of words of each text."""
        return np.array([len(row) for row in self.words], dtype=np.int64)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """ISO 639 codes; empty below 40 letters or where py3langid's confidence is below 0.9."""
        return tuple(map(_language, self.texts or ("",) * self.n))

    @cached_property
    def space(self) -> Floats | None:
        """The rows in the space of the topics [n, d]."""
        return None if self.vectors is None else self.vectors()

    def topic_of(self, partition: KMeans) -> Ints:
        """The number of each row's topic in a partition, [n]."""
        assert self.space is not None
        if id(partition) not in self._parts:
            self._parts[id(partition)] = partition.predict(self.space)
        return self._parts[id(partition)]

    def numbers(self, column: str) -> Floats:
        """A column as numbers [n], NaN where a cell is not a number."""
        cells = self.columns.get(column, (None,) * self.n)
        return np.array([_number(cell) for cell in cells])


def _language(text: str) -> str:
    if len(_LETTER.findall(text[:400])) < MIN_LETTERS:
        return ""
    code, confidence = identify_language(text[:400])
    return code if confidence >= MIN_CONFIDENCE else ""


def _number(cell: object) -> float:
    if isinstance(cell, bool) or cell is None:
        return float("nan")
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


class Condition(ABC):
    """A frozen condition that holds for a row or does not. ``str`` names the slice in words, such
    as "texts of 3 to 5 words"; ``kind`` is its type in JSON."""

    __slots__: tuple[str, ...] = ()
    kind: ClassVar[str]

    @abstractmethod
    def holds(self, facts: RowFacts) -> Bools:
        """For which of these rows it holds, [n]."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "words": str(self), **self._values()}

    def _values(self) -> dict[str, Any]:
        """The values that define the condition: its fields."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Length(Condition):
    """Texts of ``low`` to ``high`` words, both included; ``None`` means no limit."""

    low: int | None
    high: int | None
    kind: ClassVar[str] = "length"

    def holds(self, facts: RowFacts) -> Bools:
        return _within(facts.lengths, self.low, self.high)

    def __str__(self) -> str:
        if self.low is None:
            return f"texts of at most {self.high} words"
        if self.high is None:
            return f"texts of {self.low} words or more"
        return f"texts of {self.low} to {self.high} words"


@dataclass(frozen=True, slots=True)
class HasWords(Condition):
    """Texts with a word or a pair of neighbouring words, in upper or lower case."""

    value: str
    kind: ClassVar[str] = "words"

    def holds(self, facts: RowFacts) -> Bools:
        return np.fromiter((self.value in row for row in facts.grams), np.bool_, len(facts))

    def __str__(self) -> str:
        return f'texts with "{self.value}"'


@dataclass(frozen=True, slots=True)
class TextForm(Condition):
    """Texts of a form, by its name in ``FORMS``."""

    value: str
    kind: ClassVar[str] = "form"

    def holds(self, facts: RowFacts) -> Bools:
        test = FORMS[self.value]
        return np.fromiter(map(test, facts.texts or ("",) * len(facts)), np.bool_, len(facts))

    def __str__(self) -> str:
        return f"texts with {READABLE_FORMS.get(self.value, self.value)}"


@dataclass(frozen=True, slots=True)
class Language(Condition):
    """Texts in a language (ISO 639), where py3langid is confident of it."""

    value: str
    kind: ClassVar[str] = "language"

    def holds(self, facts: RowFacts) -> Bools:
        return np.fromiter((one == self.value for one in facts.languages), np.bool_, len(facts))

    def __str__(self) -> str:
        return f"texts in the language {self.value!r}"


@dataclass(frozen=True, slots=True)
class Category(Condition):
    """Rows with a given value in another column; ``None`` for an empty cell."""

    column: str
    value: str | None
    kind: ClassVar[str] = "column"

    def holds(self, facts: RowFacts) -> Bools:
        cells = facts.columns.get(self.column, (None,) * len(facts))
        return np.fromiter(
            (as_category(cell) == self.value for cell in cells), np.bool_, len(facts)
        )

    def __str__(self) -> str:
        if self.value is None:
            return f"rows without a value in the column {self.column}"
        return f"rows with {self.column} = {self.value}"


@dataclass(frozen=True, slots=True)
class NumberRange(Condition):
    """Rows whose other column is a number from ``low`` to ``high``, both included."""

    column: str
    low: float | None
    high: float | None
    kind: ClassVar[str] = "column"

    def holds(self, facts: RowFacts) -> Bools:
        return _within(facts.numbers(self.column), self.low, self.high)

    def __str__(self) -> str:
        if self.low is None:
            return f"rows with {self.column} of at most {self.high:g}"
        if self.high is None:
            return f"rows with {self.column} of {self.low:g} or more"
        return f"rows with {self.column} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Topic(Condition):
    """Rows nearest to one of the centres of a partition, named by its ``terms``."""

    partition: KMeans
    number: int
    terms: tuple[str, ...]
    kind: ClassVar[str] = "topic"

    def holds(self, facts: RowFacts) -> Bools:
        return np.asarray(facts.topic_of(self.partition) == self.number)

    def __str__(self) -> str:
        if not self.terms:
            return f"rows like those of group {self.number + 1} of {self.partition.n_clusters}"
        return f"texts about: {', '.join(self.terms)}"

    def _values(self) -> dict[str, Any]:
        return {"terms": list(self.terms), "of": self.partition.n_clusters}


@dataclass(frozen=True, slots=True)
class Both(Condition):
    """Rows for which two conditions hold."""

    one: Condition
    other: Condition
    kind: ClassVar[str] = "both"

    def holds(self, facts: RowFacts) -> Bools:
        return self.one.holds(facts) & self.other.holds(facts)

    def __str__(self) -> str:
        return f"{self.one}, and {self.other}"

    def _values(self) -> dict[str, Any]:
        return {"of": [self.one.to_json(), self.other.to_json()]}


def as_category(cell: object) -> str | None:
    """A cell as the name of a category; ``None`` for an empty one."""
    text = "" if cell is None or cell != cell else str(cell).strip()
    return text or None


def _within(values: Floats | Ints, low: float | None, high: float | None) -> Bools:
    inside = values == values
    if low is not None:
        inside &= values >= low
    if high is not None:
        inside &= values <= high
    return np.asarray(inside)


def condition_of(plain: Mapping[str, Any]) -> Condition | None:
    """The condition whose ``Condition.to_json`` gave ``plain``; ``None`` if it cannot be restored:
    a topic is a place in a vector space that was not stored."""
    kind = plain.get("kind")
    if kind == "both":
        conditions = [condition_of(one) for one in plain["of"]]
        return None if None in conditions else Both(*conditions)  # type: ignore[arg-type]
    if kind == "form" and plain["value"] not in FORMS:
        return None
    of_kind = [one for one in READABLE_CONDITIONS if one.kind == kind]
    # ``kind`` "column" holds a value or a range of numbers.
    condition_type = next((one for one in of_kind if {*one.__slots__} <= plain.keys()), None)
    return (
        None
        if condition_type is None
        else condition_type(**{name: plain[name] for name in condition_type.__slots__})
    )


# The conditions that can be restored from their JSON.
READABLE_CONDITIONS: tuple[type[Condition], ...] = (
    Length,
    HasWords,
    TextForm,
    Language,
    Category,
    NumberRange,
)


def weak_slices(result: Mapping[str, Any]) -> dict[str, Condition | None]:
    """The slices that a ``result.json`` confirms to have more errors: the condition of each by its
    name, ``None`` if it cannot be restored (``condition_of``)."""
    confirmed = (result.get("slices") or {}).get("found") or ()
    return {str(one["slice"]): condition_of(one["condition"]) for one in confirmed}
