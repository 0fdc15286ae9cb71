"""Two texts side by side, with the words marked in which they differ."""

from __future__ import annotations

import difflib
import re

from markupsafe import Markup, escape

# Words that are compared and shown of each text; the rest is cut, which is said.
MOST_WORDS = 160
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


def marked(one: str, other: str) -> tuple[Markup, Markup]:
    """Both texts as HTML, escaped; what only one of them has is inside ``<mark>``."""
    first, second = _pieces(one), _pieces(other)
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    left, right = Markup(""), Markup("")
    for same, a, b, c, d in matcher.get_opcodes():
        left += _piece("".join(first[a:b]), same == "equal")
        right += _piece("".join(second[c:d]), same == "equal")
    return left + _cut(one, first), right + _cut(other, second)


def _pieces(text: str) -> list[str]:
    return _WORD.findall(text)[: 2 * MOST_WORDS]


def _piece(text: str, same: bool) -> Markup:
    return escape(text) if same or not text else Markup("<mark>") + escape(text) + Markup("</mark>")


def _cut(text: str, pieces: list[str]) -> Markup:
    return Markup(" …") if len(text) > sum(map(len, pieces)) else Markup("")
