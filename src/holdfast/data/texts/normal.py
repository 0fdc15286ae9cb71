"""Texts that are the same to a reader: but for case, space and punctuation, or for letters of
Cyrillic and Greek that nobody can tell from a Latin one.
"""

from __future__ import annotations

import re

# Among the Unicode consortium's confusables (UTS 39).
LOOK_ALIKES = dict(
    zip(
        "АВЕЅІЈКМНОРСТУХасеһіјорѕухԁԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο",
        "ABESIJKMHOPCTYXacehijopsyxdqw" + "ABEZHIKMNOPTYXo",
        strict=True,
    )
)
TO_LATIN = str.maketrans(LOOK_ALIKES)
ANY = f"[{''.join(LOOK_ALIKES)}]"


_BETWEEN = re.compile(r"[\W_]+")


def normal_text(text: str) -> str:
    """The words of the text, case folded, with single spaces. A text without any word stays as it
    is but for the space around it, so that ``":)"`` and ``":("`` differ.

    >>> normal_text("Great -- MOVIE!")
    'great movie'
    """
    return _BETWEEN.sub(" ", text.casefold()).strip() or text.strip()
