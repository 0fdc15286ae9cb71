"""A search space: keys of a recipe, each with the values that it may take."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from holdfast.core.wording import count_phrase

# Numbers of a range without a step that a grid tries.
GRID_POINTS = 3


@dataclass(frozen=True, slots=True)
class SettingCondition:
    """A condition: ``key`` of the same trial has one of ``values``."""

    key: str
    values: tuple[Any, ...]

    def is_met(self, settings: Mapping[str, object]) -> bool:
        return any(same_value(settings.get(self.key), value) for value in self.values)

    def __str__(self) -> str:
        values = " or ".join(format_value(value) for value in self.values)
        return f"only where {self.key} is {values}"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One key and its values.

    ``value_type`` ``number`` or ``whole``: from ``low`` to ``high``, both included, in steps of
    ``step`` if there is one, uniform over the logarithm with ``log``. ``choice``: one of
    ``choices``. It is chosen only if ``when`` holds; ``because`` is why it is searched.
    """

    key: str
    value_type: Literal["number", "whole", "choice"]
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: SettingCondition | None = None
    because: str = "set in the recipe"

    def contains(self, value: object) -> bool:
        """Whether ``value`` is one of its values."""
        if self.value_type == "choice":
            return any(same_value(value, one) for one in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        inside = self.low <= value <= self.high
        if self.value_type == "whole" and float(value) != int(value):
            return False
        if not inside or not self.step:
            return inside
        return math.isclose((value - self.low) / self.step, round((value - self.low) / self.step))

    def grid(self) -> tuple[Any, ...]:
        """The values of a grid: all of them, or three for a range without steps."""
        if self.value_type == "choice":
            return self.choices
        if self.step:
            return tuple(self._plain(self.low + i * self.step) for i in range(self.grid_points))
        shares = [i / (GRID_POINTS - 1) for i in range(GRID_POINTS)]
        if self.log:
            values = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            values = [self.low + share * (self.high - self.low) for share in shares]
        return tuple(dict.fromkeys(map(self._plain, values)))

    @property
    def grid_points(self) -> int:
        """The number of values of a grid, without making them."""
        if self.value_type == "choice":
            return len(self.choices)
        return (
            math.floor((self.high - self.low) / self.step + 1e-9) + 1 if self.step else GRID_POINTS
        )

    @property
    def finite(self) -> bool:
        """Whether it has few enough values to try all."""
        few_integers = self.value_type == "whole" and self.high - self.low < GRID_POINTS
        return self.value_type == "choice" or bool(self.step) or few_integers

    def _plain(self, value: float) -> float | int:
        if self.value_type == "whole":
            return round(value)
        return min(self.high, max(self.low, float(f"{value:.12g}")))

    def __str__(self) -> str:
        if self.value_type == "choice":
            return ", ".join(format_value(value) for value in self.choices)
        step = f" in steps of {self.step:g}" if self.step and self.step != 1 else ""
        return f"{self.low:g} to {self.high:g}{step}{' (log)' if self.log else ''}"

    def to_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"key": self.key}
        if self.value_type == "choice":
            fields["choices"] = list(self.choices)
        else:
            fields |= {"range": [self._plain(self.low), self._plain(self.high)], "log": self.log}
            fields |= {"step": self.step} if self.step else {}
        fields |= {"when": {self.when.key: list(self.when.values)}} if self.when else {}
        return {**fields, "because": self.because}


@dataclass(frozen=True)
class Space:
    """The searched keys; a key comes before those that depend on it. Other keys are as in the
    recipe; ``user_defined``: the user has named the keys."""

    dimensions: tuple[Dimension, ...] = ()
    user_defined: bool = True

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    @cached_property
    def by_key(self) -> Mapping[str, Dimension]:
        return {one.key: one for one in self.dimensions}

    def active(self, settings: Mapping[str, object]) -> tuple[Dimension, ...]:
        """The dimensions that have an effect with these ``settings``."""
        # What nobody chooses was settled when the space was made.
        return tuple(
            one
            for one in self
            if one.when is None or one.when.key not in self.by_key or one.when.is_met(settings)
        )

    def contains(self, settings: Mapping[str, object]) -> bool:
        """Whether these settings are a point of the space, with every active dimension named."""
        required = {one.key: one for one in self.active(settings)}
        return required.keys() == settings.keys() and all(
            required[key].contains(value) for key, value in settings.items()
        )

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point of the grid once, the first dimension changing slowest."""
        points: Iterator[dict[str, Any]] = iter([{}])
        for one in self.dimensions:
            points = self._extend_points(points, one)
        return points

    def _extend_points(
        self, points: Iterator[dict[str, Any]], dimension: Dimension
    ) -> Iterator[dict[str, Any]]:
        for point in points:
            if dimension in self.active(point):
                yield from ({**point, dimension.key: value} for value in dimension.grid())
            else:
                yield point

    def grid_size(self, most: int = 1_000_000) -> int:
        """How many points the grid has; counted up to ``most``."""
        if any(one.grid_points > most for one in self):
            return most
        return sum(1 for _ in itertools.islice(self.grid(), most))

    @property
    def finite(self) -> bool:
        """Whether a grid covers it completely."""
        return all(one.finite for one in self)

    def to_json(self) -> list[dict[str, Any]]:
        return [one.to_json() for one in self]

    def __str__(self) -> str:
        return f"{count_phrase(len(self), 'setting')}: {', '.join(one.key for one in self)}"


def dependencies_first(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Dimensions on which others depend come first; otherwise the order is unchanged."""
    keys = {one.key for one in dimensions}
    ordered_so_far: list[Dimension] = []
    remaining = list(dimensions)
    while remaining:
        known = {one.key for one in ordered_so_far}
        ready = [
            one
            for one in remaining
            if one.when is None or one.when.key not in keys or one.when.key in known
        ]
        # A circle: the conditions of what is left can never be met.
        ordered_so_far += ready or [replace(one, when=None) for one in remaining]
        remaining = [one for one in remaining if one not in ready] if ready else []
    return tuple(ordered_so_far)


def same_value(one: object, other: object) -> bool:
    """Whether two values of a setting are equal: ``true`` is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def format_value(value: object) -> str:
    """A value as it would be typed."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def format_settings(settings: Mapping[str, object]) -> str:
    """Settings on a line, ``default`` for none."""
    parts = [f"{key}={_format_short(value)}" for key, value in settings.items()]
    return " ".join(parts) or "default"


def _format_short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else format_value(value)


def canonical_text(value: object) -> str:
    """A unique text for a value: for keys of stores, and for choices of a library that accepts only
    plain values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
