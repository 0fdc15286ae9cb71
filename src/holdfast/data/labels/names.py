"""From a label as it is written to the words of its name, where it has some."""

from __future__ import annotations

import re

# A capital that begins a word of a label in one piece: cardArrival, HTTPError.
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_VOWELS = frozenset("aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ")
SHORTEST = 2


def words_of(label: str) -> str | None:
    """A label's name in words, ``card_arrival`` as ``card arrival``; ``None`` where it has none.

    A label without letters (``3``, ``+``), one in capitals of at most five letters (``ABBR``,
    ``NEG``), which is a code in most data sets, and one whose words are single letters or all lack
    a vowel (``x``, ``trk``) is no name. Scripts other than Latin are taken as they are. What an
    abbreviation in small letters means cannot be seen here: its rows tell
    (``quality/names.py``).
    """
    spaced = _HUMP.sub(" ", re.sub(r"[_\-./:|]+", " ", label))
    text = " ".join(spaced.split()).strip(" ?!,;")
    words = _WORD.findall(text)
    if not words or (len(words) == 1 and words[0].isupper() and len(words[0]) <= 5):
        return None
    if not any(_pronounced(word) for word in words):
        return None
    return text if any(word.isupper() for word in words) and len(words) > 1 else text.lower()


def _pronounced(word: str) -> bool:
    if not word.isascii() and not _VOWELS & set(word.lower()):
        return True
    return len(word) >= SHORTEST and bool(_VOWELS & set(word.lower()))
