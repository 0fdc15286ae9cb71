"""Foreign text as one printable line: bounded, without control characters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Control characters but for tabs and line ends (a terminal obeys them), marks that turn the
# direction of a text or show nothing, line ends that are none in a file, and halves of characters,
# which no terminal can be sent.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069"
    "\ufeff\ud800-\udfff]"
)
# Characters: some lines of a terminal.
MAX_BRIEF = 300
MAX_DEPTH = 12  # levels of a value that are shown
# Digits beyond which a whole number is told by its length: Python itself refuses to write 4,300.
MAX_DIGITS = 100
# The decimal logarithm of 2.
DIGITS_A_BIT = 0.30103
BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters; the last is an ellipsis where some are cut."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def shorten_middle(text: str, limit: int) -> str:
    """``limit`` characters, half from each end, around an ellipsis where the text is longer."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"


def bounded_repr(value: object, limit: int = 200) -> str:
    """``repr(value)``, cut to ``limit`` characters. Never more than that is built, whatever the
    value holds: of a list that contains itself a million times, only the beginning is read."""
    text = ""
    for piece in _pieces(value, limit, 0):
        text += piece
        if len(text) > limit:
            return shorten(text, limit)
    return text


def printable(text: str, limit: int | None = None) -> str:
    """``text`` with every character that a terminal would obey rather than show written out, as
    ``repr`` writes it; lines, tabs and words in any letters stay. Beyond ``limit`` characters its
    middle is left out.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if limit is not None:
        text = shorten_middle(text, limit)
    return _CONTROL_CHARACTERS.sub(_escaped, text)


def brief_repr(name: str, *parts: object) -> str:
    """``Name(content; on one line)``: what a prompt shows of an object that holds thousands of
    numbers."""
    content = "; ".join(" ".join(str(part).split()).rstrip(".") for part in parts)
    if len(content) > MAX_BRIEF:
        content = content[:MAX_BRIEF].rpartition(" ")[0] + " …"
    return printable(f"{name}({content})")


def printable_json(document: str) -> str:
    """The same JSON document with control characters as JSON escapes, where ``json.dumps`` with
    ``ensure_ascii=False`` leaves them unchanged."""
    return _CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _pieces(value: object, limit: int, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield "…"
    elif type(value) in BRACKETS:
        yield from _item_pieces(value, limit, depth)
    elif isinstance(value, (str, bytes)):
        yield repr(value[: limit + 1])
    elif type(value) is int and value.bit_length() > MAX_DIGITS / DIGITS_A_BIT:
        yield f"a whole number of {value.bit_length() * DIGITS_A_BIT:.0f} digits"
    else:
        try:
            text = repr(value)
        except Exception as error:
            text = f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"
        yield text


def _item_pieces(value: Any, limit: int, depth: int) -> Iterator[str]:
    """A container, item by item."""
    container_type = type(value)
    if not value and container_type in (set, frozenset):
        yield f"{container_type.__name__}()"
        return
    opening, closing = BRACKETS[container_type]
    yield opening
    for place, item in enumerate(value):
        yield ", " if place else ""
        yield from _pieces(item, limit, depth + 1)
        if container_type is dict:
            yield ": "
            yield from _pieces(value[item], limit, depth + 1)
    yield "," + closing if container_type is tuple and len(value) == 1 else closing
