"""Words of rows: vectors of them where a model gives none, and the words that tell new rows from
old ones.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats

WIDTH = 256
# Of a long text the beginning says what it is about.
MOST_WORDS = 2000
# A word that so few rows hold may name a person, and says nothing of the many.
LEAST_ROWS = 3
MOST_KEPT = 5000
# Of the prior of each word's share, in rows.
PRIOR = 10.0
# Standard errors: with thousands of words tried, one of 30,000 is there by chance.
SURE = 4.0
TERMS = 8
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True, slots=True)
class DriftWord:
    """A word, and the shares of new and of old rows that hold it; ``z`` is how sure the difference
    is, in standard errors, above 0 where it is more frequent now."""

    word: str
    now: float
    then: float
    z: float


def hashed_words(texts: Sequence[str]) -> Floats:
    """Signed counts of hashed words [n, 256], logarithmic, each row of length 1 (0 without a
    word): Weinberger and others (0902.2206). It needs no vocabulary, so that later texts are read
    alike."""
    found = np.zeros((len(texts), WIDTH))
    for row, text in enumerate(texts):
        for word, n in Counter(_words(text)).items():
            mark = zlib.crc32(word.encode())
            found[row, mark % WIDTH] += (1 if mark & 0x80000000 else -1) * (1 + math.log(n))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, 1e-12))


def rows_with(texts: Sequence[str]) -> dict[str, int]:
    """How many texts hold each word, of words that ``LEAST_ROWS`` hold: the most frequent ones."""
    counts = Counter(word for text in texts for word in set(_words(text)))
    common = sorted(((-n, word) for word, n in counts.items() if n >= LEAST_ROWS))[:MOST_KEPT]
    return {word: -n for n, word in common}


def telling_terms(
    now: Mapping[str, int], rows: int, then: Mapping[str, int], before: int
) -> list[DriftWord]:
    """The words that new rows hold more often, or less, than old ones, the surest first, at most
    eight: from how many of ``rows`` and of ``before`` hold each.

    The log odds of each word with an informative prior, its share in both, over its standard error
    (Monroe, Colaresi and Quinn 2008), which keeps rare words from leading.
    """
    found = []
    for word in {*now, *then}:
        a, b = now.get(word, 0), then.get(word, 0)
        share = (a + b) / max(1, rows + before)
        if not 0 < share < 1:
            continue
        yes, no = PRIOR * share, PRIOR * (1 - share)
        gap = math.log((a + yes) / (rows - a + no)) - math.log((b + yes) / (before - b + no))
        error = math.sqrt(1 / (a + yes) + 1 / (b + yes))
        if abs(gap / error) >= SURE:
            found.append(DriftWord(word, a / max(1, rows), b / max(1, before), gap / error))
    return sorted(found, key=lambda term: (-abs(term.z), term.word))[:TERMS]


def _words(text: str) -> list[str]:
    return [found.casefold() for found in _WORD.findall(text)][:MOST_WORDS]
