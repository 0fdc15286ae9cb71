"""Texts that are the same but for case, space and punctuation."""

from __future__ import annotations

import re

_BETWEEN = re.compile(r"[\W_]+")


def normal_text(text: str) -> str:
    """The words of the text, case folded, with single spaces. A text without any word stays as it
    is but for the space around it, so that ``":)"`` and ``":("`` differ.

    >>> normal_text("Great -- MOVIE!")
    'great movie'
    """
    return _BETWEEN.sub(" ", text.casefold()).strip() or text.strip()
