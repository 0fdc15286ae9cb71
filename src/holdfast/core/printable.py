"""What a stranger wrote, as one line that may be printed: bounded, without control characters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Control characters but for tabs and line ends (a terminal obeys them), marks that turn the
# direction of a text or show nothing, line ends that are none in a file, and halves of characters,
# which no terminal can be sent.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069"
    "\ufeff\ud800-\udfff]"
)
# Characters: some lines of a terminal.
BRIEF = 300
DEEPEST = 12  # levels of a value that are shown
# Digits beyond which a whole number is told by its length: Python itself refuses to write 4,300.
LONGEST_NUMBER = 100
# The decimal logarithm of 2.
DIGITS_A_BIT = 0.30103
AROUND: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def shown(value: object, limit: int = 200) -> str:
    """``repr(value)``, cut to ``limit`` characters. Never more than that is built, whatever the
    value holds: of a list that names itself a million times only the beginning is looked at."""
    text = ""
    for piece in _pieces(value, limit, 0):
        text += piece
        if len(text) > limit:
            return text[: limit - 1] + "…"
    return text


def printable(text: str, limit: int | None = None) -> str:
    """``text`` with every character that a terminal would obey rather than show written out, as
    ``repr`` writes it; lines, tabs and words in any letters stay. Beyond ``limit`` characters its
    middle is left out.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if limit is not None and len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} … {text[-half:]}"
    return _OBEYED.sub(_written, text)


def brief(name: str, *parts: object) -> str:
    """``Name(what it says; in a line)``: what a prompt shows of an object that holds thousands of
    numbers."""
    said = "; ".join(" ".join(str(part).split()) for part in parts)
    return printable(f"{name}({said if len(said) <= BRIEF else said[: BRIEF - 1] + '…'})")


def printable_json(document: str) -> str:
    """The same JSON document with such characters as JSON's own escapes, where ``json.dumps`` with
    ``ensure_ascii=False`` leaves them as they are."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _pieces(value: object, limit: int, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        yield "…"
    elif type(value) in AROUND:
        yield from _items_in(value, limit, depth)
    elif isinstance(value, (str, bytes)):
        yield repr(value[: limit + 1])
    elif type(value) is int and value.bit_length() > LONGEST_NUMBER / DIGITS_A_BIT:
        yield f"a whole number of {value.bit_length() * DIGITS_A_BIT:.0f} digits"
    else:
        try:
            text = repr(value)
        except Exception as error:
            text = f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"
        yield text


def _items_in(value: Any, limit: int, depth: int) -> Iterator[str]:
    """A container, one item after the other."""
    kind = type(value)
    if not value and kind in (set, frozenset):
        yield f"{kind.__name__}()"
        return
    opened, closed = AROUND[kind]
    yield opened
    for place, item in enumerate(value):
        yield ", " if place else ""
        yield from _pieces(item, limit, depth + 1)
        if kind is dict:
            yield ": "
            yield from _pieces(value[item], limit, depth + 1)
    yield "," + closed if kind is tuple and len(value) == 1 else closed
