"""Types of a recipe's values, checked before their range. A Boolean is not a number, and a number
is neither a Boolean nor text."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# A chat template has up to 10,000 characters; a regular expression or an address has far fewer.
MAX_TEXT_CHARACTERS = 100_000
MAX_NUMBER_CHARACTERS = 100


def plain_types(annotation: object) -> Iterator[type]:
    """The plain types that an annotation accepts, without ``None``; of a tuple, the types of its
    items."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from plain_types(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType, tuple):
        for one in typing.get_args(annotation):
            yield from plain_types(one)
    elif origin is typing.Literal:
        yield typing.Literal
    elif isinstance(annotation, type) and annotation is not type(None):
        yield annotation
    elif origin is not None:
        yield origin


def check_value(value: object, accepted: frozenset[type]) -> Any:
    """``value`` for a key that accepts the types ``accepted``. Raises ``ValueError`` with the
    rule."""
    if value is None:
        return None
    if accepted == {bool}:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in BOOLEANS:
            return BOOLEANS[value.lower()]
        raise ValueError("must be true or false")
    numeric = accepted <= {int, float, str} and accepted & {int, float}
    if numeric and isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    if numeric and isinstance(value, str) and str not in accepted:
        # A number in quotes, or one that YAML 1.1 reads as text: 1e-4.
        if len(value) > MAX_NUMBER_CHARACTERS or not NUMBER.fullmatch(value):
            raise ValueError("must be a number")
        return float(value) if re.search("[.eE]", value) else int(value)
    if accepted == {str} and isinstance(value, (bool, int, float)):
        raise ValueError("must be text: put it in quotes")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, (list, tuple)) and str in accepted:
        for one in value:
            check_value(one, frozenset({str}))
    return value


def check_free_value(value: object) -> None:
    """Check a value of a free section (``methods``): finite numbers, Booleans, text, and lists and
    tables of these. Raises ``ValueError`` with the rule."""
    if isinstance(value, dict):
        for key, one in value.items():
            check_free_value(key)
            check_free_value(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            check_free_value(one)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"holds {value}, which is not a finite number")
    elif isinstance(value, str):
        _check_text(value)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise ValueError(f"holds a value of type {type(value).__name__}")


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"must be text of at most {MAX_TEXT_CHARACTERS:,} characters")
    if "\0" in text:
        raise ValueError("holds a NUL character: remove it")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("holds bytes that are not UTF-8: rename the file, or save it as UTF-8")
