"""Texts as sparse vectors of their words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Words and word pairs. A punctuation mark counts as a word, because it may be decisive.
_TOKEN = re.compile(r"\w+|[^\w\s]")
LEAST_ROWS_WITH_WORD = 2
MOST_WORDS = 50_000
# The beginning of a long text shows its subject; without a limit a novel would take minutes.
MAX_TOKENS = 2000


def word_features(texts: Sequence[str]) -> csr_matrix:
    """The weights of words and of pairs of neighbouring words [n, words], each row of length 1:
    (1 + log count in the text) · (1 + log((1 + n) ÷ (1 + texts that have it))). Words in fewer than
    two texts are omitted, and all but the 50,000 most frequent. Case is ignored."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(
        analyzer=_words_and_pairs,
        sublinear_tf=True,
        min_df=LEAST_ROWS_WITH_WORD,
        max_features=MOST_WORDS,
    )
    try:
        return csr_matrix(weights.fit_transform(texts))
    except ValueError:  # no word is in two texts
        return csr_matrix((len(texts), 1))


def _words_and_pairs(text: str) -> list[str]:
    words = _TOKEN.findall(text.casefold())[:MAX_TOKENS]
    return [*words, *map(" ".join, pairwise(words))]
