"""What a search may change: keys of a recipe, each with the values that it may take."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from holdfast.core.wording import count_phrase

# Numbers of a range without a step that a grid looks at.
POINTS = 3


@dataclass(frozen=True, slots=True)
class OnlyWhere:
    """``key`` of the same trial is one of ``values``."""

    key: str
    values: tuple[Any, ...]

    def holds(self, chosen: Mapping[str, object]) -> bool:
        return any(same(chosen.get(self.key), value) for value in self.values)

    def __str__(self) -> str:
        shown = " or ".join(word(value) for value in self.values)
        return f"only where {self.key} is {shown}"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One key and its values.

    ``kind`` ``number`` or ``whole``: from ``low`` to ``high``, both among them, in steps of
    ``step`` where there is one, evenly over the logarithm with ``log``. ``choice``: one of
    ``choices``. It is chosen only where ``when`` holds; ``because`` is why it is searched so.
    """

    key: str
    kind: Literal["number", "whole", "choice"]
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: OnlyWhere | None = None
    because: str = "set by you"

    def holds(self, value: object) -> bool:
        """Whether ``value`` is one that it may take."""
        if self.kind == "choice":
            return any(same(value, one) for one in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        inside = self.low <= value <= self.high
        if self.kind == "whole" and float(value) != int(value):
            return False
        if not inside or not self.step:
            return inside
        return math.isclose((value - self.low) / self.step, round((value - self.low) / self.step))

    def grid(self) -> tuple[Any, ...]:
        """The values that a grid looks at: all of them, or of a range without steps three."""
        if self.kind == "choice":
            return self.choices
        if self.step:
            return tuple(self._plain(self.low + i * self.step) for i in range(self.points))
        shares = [i / (POINTS - 1) for i in range(POINTS)]
        if self.log:
            found = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            found = [self.low + share * (self.high - self.low) for share in shares]
        return tuple(dict.fromkeys(map(self._plain, found)))

    @property
    def points(self) -> int:
        """How many values a grid looks at, without making them."""
        if self.kind == "choice":
            return len(self.choices)
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1 if self.step else POINTS

    @property
    def finite(self) -> bool:
        """Whether it has so few values that all can be tried."""
        whole = self.kind == "whole" and self.high - self.low < POINTS
        return self.kind == "choice" or bool(self.step) or whole

    def _plain(self, value: float) -> float | int:
        if self.kind == "whole":
            return round(value)
        return min(self.high, max(self.low, float(f"{value:.12g}")))

    def __str__(self) -> str:
        if self.kind == "choice":
            return ", ".join(word(value) for value in self.choices)
        step = f" in steps of {self.step:g}" if self.step and self.step != 1 else ""
        return f"{self.low:g} to {self.high:g}{step}{' (log)' if self.log else ''}"

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"key": self.key}
        if self.kind == "choice":
            found["choices"] = list(self.choices)
        else:
            found |= {"range": [self._plain(self.low), self._plain(self.high)], "log": self.log}
            found |= {"step": self.step} if self.step else {}
        found |= {"when": {self.when.key: list(self.when.values)}} if self.when else {}
        return {**found, "because": self.because}


@dataclass(frozen=True)
class Space:
    """The keys that are searched, those on which others depend before these. What is not among
    them is as the recipe has it; ``own``: the user has named them."""

    dimensions: tuple[Dimension, ...] = ()
    own: bool = True

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    @cached_property
    def by_key(self) -> Mapping[str, Dimension]:
        return {one.key: one for one in self.dimensions}

    def active(self, chosen: Mapping[str, object]) -> tuple[Dimension, ...]:
        """Those that have an effect beside what was ``chosen``."""
        # What nobody chooses was settled when the space was made.
        return tuple(
            one
            for one in self
            if one.when is None or one.when.key not in self.by_key or one.when.holds(chosen)
        )

    def holds(self, settings: Mapping[str, object]) -> bool:
        """Whether these settings are a point of the space, all that has an effect being named."""
        wanted = {one.key: one for one in self.active(settings)}
        return wanted.keys() == settings.keys() and all(
            wanted[key].holds(value) for key, value in settings.items()
        )

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point of the grid once, the first dimension changing slowest."""
        points: Iterator[dict[str, Any]] = iter([{}])
        for one in self.dimensions:
            points = self._spread(points, one)
        return points

    def _spread(self, points: Iterator[dict[str, Any]], one: Dimension) -> Iterator[dict[str, Any]]:
        for point in points:
            if one in self.active(point):
                yield from ({**point, one.key: value} for value in one.grid())
            else:
                yield point

    def grid_size(self, most: int = 1_000_000) -> int:
        """How many points the grid has; counted up to ``most``."""
        if any(one.points > most for one in self):
            return most
        return sum(1 for _ in itertools.islice(self.grid(), most))

    @property
    def finite(self) -> bool:
        """Whether a grid is all of it."""
        return all(one.finite for one in self)

    def to_json(self) -> list[dict[str, Any]]:
        return [one.to_json() for one in self]

    def __str__(self) -> str:
        return f"{count_phrase(len(self), 'setting')}: {', '.join(one.key for one in self)}"


def ordered(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """What others depend on first; otherwise as they were."""
    keys = {one.key for one in dimensions}
    done: list[Dimension] = []
    left = list(dimensions)
    while left:
        known = {one.key for one in done}
        free = [
            one
            for one in left
            if one.when is None or one.when.key not in keys or one.when.key in known
        ]
        # A circle: the conditions of what is left can never be met.
        done += free or [replace(one, when=None) for one in left]
        left = [one for one in left if one not in free] if free else []
    return tuple(done)


def same(one: object, other: object) -> bool:
    """Whether two values of a setting are one: ``true`` is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def word(value: object) -> str:
    """A value as it would be typed."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(settings: Mapping[str, object]) -> str:
    """Settings on a line, ``default`` for none."""
    told = [f"{key}={_short(value)}" for key, value in settings.items()]
    return " ".join(told) or "default"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else word(value)


def plain(value: object) -> str:
    """A value as a text that tells it from every other: for keys of stores, and for choices of a
    library that knows plain values alone."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
