"""A condition that a run wrote down, made again, so that other rows can be asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.know.slices.conditions import (
    Both,
    Category,
    Condition,
    Form,
    Holds,
    Language,
    Length,
    Range,
)
from holdfast.know.slices.facts import FORMS


def condition_of(plain: Mapping[str, Any]) -> Condition | None:
    """The condition of which ``Condition.to_json`` gave ``plain``; ``None`` where it cannot be made
    of its words: a topic is a place in a space that went with its run."""
    kind = plain.get("kind")
    if kind == "length":
        return Length(plain["low"], plain["high"])
    if kind == "words":
        return Holds(plain["value"])
    if kind == "form":
        return Form(plain["value"]) if plain["value"] in FORMS else None
    if kind == "language":
        return Language(plain["value"])
    if kind == "column":
        if "value" in plain:
            return Category(plain["column"], plain["value"])
        return Range(plain["column"], plain["low"], plain["high"])
    if kind == "both":
        made = [condition_of(one) for one in plain["of"]]
        return None if None in made else Both(*made)  # type: ignore[arg-type]
    return None
