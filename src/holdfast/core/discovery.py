"""Registries that contract kits can walk: a family of named things, one entry a thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from holdfast.core.errors import RecipeError

T = TypeVar("T")

FAMILIES: dict[str, Registry[object]] = {}


class Registry(Mapping[str, T], Generic[T]):
    """A family such as the optimizers: names to things. An unknown name is refused by naming the
    nearest known one. Every registry stands in ``FAMILIES``, so that a test can demand a kit."""

    def __init__(self, family: str, setting: str) -> None:
        self.family = family
        self.setting = setting
        self._things: dict[str, T] = {}
        FAMILIES[family] = self  # type: ignore[assignment]

    def add(self, name: str, thing: T) -> T:
        self._things[name] = thing
        return thing

    def __getitem__(self, name: str) -> T:
        if name in self._things:
            return self._things[name]
        raise RecipeError(
            self.setting, f"is not a known {self.family}", name, nearest(name, list(self._things))
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, name: object) -> bool:
        return name in self._things


def nearest(name: str, known: list[str]) -> str:
    """A remedy that names the nearest known name, then all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}Known: {', '.join(sorted(known))}."
