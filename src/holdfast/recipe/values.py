"""What a value of a recipe may be, before its range is looked at: a truth is no number, a number no
truth and no word, and a word is whole text."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# A chat template has 10,000 characters, a regular expression or an address far fewer.
LONGEST_WORDS = 100_000
LONGEST_NUMBER = 100


def kinds(annotation: object) -> Iterator[type]:
    """The plain types that an annotation takes, ``None`` left out; of a tuple its items'."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from kinds(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType, tuple):
        for one in typing.get_args(annotation):
            yield from kinds(one)
    elif origin is typing.Literal:
        yield typing.Literal
    elif isinstance(annotation, type) and annotation is not type(None):
        yield annotation
    elif origin is not None:
        yield origin


def checked(value: object, taken: frozenset[type]) -> Any:
    """``value`` for a key that takes the types ``taken``. Raises ``ValueError`` with the rule."""
    if value is None:
        return None
    if taken == {bool}:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in TRUTHS:
            return TRUTHS[value.lower()]
        raise ValueError("must be true or false")
    numeric = taken <= {int, float, str} and taken & {int, float}
    if numeric and isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    if numeric and isinstance(value, str) and str not in taken:
        # A number in quotes, or one that YAML 1.1 does not know for one: 1e-4.
        if len(value) > LONGEST_NUMBER or not NUMBER.fullmatch(value):
            raise ValueError("must be a number")
        return float(value) if re.search("[.eE]", value) else int(value)
    if taken == {str} and isinstance(value, (bool, int, float)):
        raise ValueError("must be text: put it in quotes")
    if isinstance(value, str):
        _check_words(value)
    elif isinstance(value, (list, tuple)) and str in taken:
        for one in value:
            checked(one, frozenset({str}))
    return value


def check_free(value: object) -> None:
    """Hold what a free part (``methods``) may be set to: finite numbers, truths, words, lists and
    tables of these. Raises ``ValueError`` with the rule."""
    if isinstance(value, dict):
        for key, one in value.items():
            check_free(key)
            check_free(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            check_free(one)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"holds {value}, which is not a finite number")
    elif isinstance(value, str):
        _check_words(value)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise ValueError(f"holds a value of the type {type(value).__name__}")


def _check_words(text: str) -> None:
    if len(text) > LONGEST_WORDS:
        raise ValueError(f"must be text of at most {LONGEST_WORDS:,} characters")
    if "\0" in text:
        raise ValueError("holds the character NUL, which no name and no text has")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("holds bytes that are not UTF-8: rename the file, or save it as UTF-8")
