"""A condition that a run wrote down, made again, so that other rows can be asked for it.

Conditions: which rows a slice holds, in words, and for rows of any table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from holdfast.analyses.slices.facts import FORMS, RowFacts
from holdfast.analyses.slices.topics import Partition

if TYPE_CHECKING:
    from holdfast.core.records import Floats, Ints


def condition_of(plain: Mapping[str, Any]) -> Condition | None:
    """The condition of which ``Condition.to_json`` gave ``plain``; ``None`` where it cannot be made
    of its words: a topic is a place in a space that went with its run."""
    kind = plain.get("kind")
    if kind == "length":
        return Length(plain["low"], plain["high"])
    if kind == "words":
        return Holds(plain["value"])
    if kind == "form":
        return TextForm(plain["value"]) if plain["value"] in FORMS else None
    if kind == "language":
        return Language(plain["value"])
    if kind == "column":
        if "value" in plain:
            return Category(plain["column"], plain["value"])
        return NumberRange(plain["column"], plain["low"], plain["high"])
    if kind == "both":
        made = [condition_of(one) for one in plain["of"]]
        return None if None in made else Both(*made)  # type: ignore[arg-type]
    return None


Bools = npt.NDArray[np.bool_]


class Condition(ABC):
    """A frozen question that each row answers with yes or no. ``str`` says it in words that go on
    after "rows" or "texts"; ``kind`` is a word for JSON."""

    kind: ClassVar[str]
    depth: ClassVar[int] = 1

    @abstractmethod
    def holds(self, facts: RowFacts) -> Bools:
        """Which of these rows, [n]."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "words": str(self), **self._values()}

    def _values(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class Length(Condition):
    """Texts of ``low`` to ``high`` words, both included; ``None`` for no limit."""

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

    def _values(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Holds(Condition):
    """Texts with a word, or two that stand side by side; case is no matter."""

    gram: str
    kind: ClassVar[str] = "words"

    def holds(self, facts: RowFacts) -> Bools:
        return np.fromiter((self.gram in row for row in facts.grams), np.bool_, len(facts))

    def __str__(self) -> str:
        return f'texts with "{self.gram}"'

    def _values(self) -> dict[str, Any]:
        return {"value": self.gram}


@dataclass(frozen=True, slots=True)
class TextForm(Condition):
    """Texts of a form, by its name in ``FORMS``."""

    name: str
    kind: ClassVar[str] = "form"

    def holds(self, facts: RowFacts) -> Bools:
        test = FORMS[self.name]
        return np.fromiter(map(test, facts.texts or ("",) * len(facts)), np.bool_, len(facts))

    def __str__(self) -> str:
        return f"texts with {self.name}"

    def _values(self) -> dict[str, Any]:
        return {"value": self.name}


@dataclass(frozen=True, slots=True)
class Language(Condition):
    """Texts that are surely in a language (ISO 639)."""

    code: str
    kind: ClassVar[str] = "language"

    def holds(self, facts: RowFacts) -> Bools:
        return np.fromiter((one == self.code for one in facts.languages), np.bool_, len(facts))

    def __str__(self) -> str:
        return f"texts in the language {self.code!r}"

    def _values(self) -> dict[str, Any]:
        return {"value": self.code}


@dataclass(frozen=True, slots=True)
class Category(Condition):
    """Rows whose side column is a value; ``None`` for an empty cell."""

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
            return f"rows without a value of {self.column}"
        return f"rows with {self.column} = {self.value}"

    def _values(self) -> dict[str, Any]:
        return {"column": self.column, "value": self.value}


@dataclass(frozen=True, slots=True)
class NumberRange(Condition):
    """Rows whose side column is a number from ``low`` to ``high``, both included."""

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

    def _values(self) -> dict[str, Any]:
        return {"column": self.column, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, eq=False)
class Topic(Condition):
    """Rows that lie nearest to one of the centres of a partition, named by its ``terms``."""

    partition: Partition
    number: int
    terms: tuple[str, ...]
    kind: ClassVar[str] = "topic"

    def holds(self, facts: RowFacts) -> Bools:
        return np.asarray(facts.topic_of(self.partition) == self.number)

    def __str__(self) -> str:
        if not self.terms:
            return f"rows like those of group {self.number + 1} of {len(self.partition)}"
        return f"texts about: {', '.join(self.terms)}"

    def _values(self) -> dict[str, Any]:
        return {"terms": list(self.terms), "of": len(self.partition)}


@dataclass(frozen=True, slots=True)
class Both(Condition):
    """Rows of which two conditions hold."""

    one: Condition
    other: Condition
    kind: ClassVar[str] = "both"
    depth: ClassVar[int] = 2

    def holds(self, facts: RowFacts) -> Bools:
        return self.one.holds(facts) & self.other.holds(facts)

    def __str__(self) -> str:
        return f"{self.one}, and {self.other}"

    def _values(self) -> dict[str, Any]:
        return {"of": [self.one.to_json(), self.other.to_json()]}


def as_category(cell: object) -> str | None:
    """A cell as the name of a category; nothing for an empty one."""
    text = "" if cell is None or cell != cell else str(cell).strip()
    return text or None


def _within(values: Floats | Ints, low: float | None, high: float | None) -> Bools:
    found = values == values
    if low is not None:
        found &= values >= low
    if high is not None:
        found &= values <= high
    return np.asarray(found)
