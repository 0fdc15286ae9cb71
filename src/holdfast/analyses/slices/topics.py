"""Topics of texts: groups of rows that lie close together in a vector space, named by their terms.

``word_space`` is a cheap such space: weighted word counts, projected on their main directions.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from holdfast.augment.texts.word_edits import FUNCTION
from holdfast.core.records import Floats, Ints

if TYPE_CHECKING:
    from sklearn.cluster import KMeans


WORD_DIRECTIONS = 50
MIN_ROWS, MAX_WORDS = 2, 20_000
TERMS = 3
MIN_LETTERS = 3
Words = Sequence[Sequence[str]]


def content_words(words: Sequence[str]) -> list[str]:
    """The words of a text without function words."""
    return [word for word in words if word not in FUNCTION]


def word_space(words: Words) -> Callable[[Words], Floats] | None:
    """The vectors [n, d] of texts given as words, by latent semantic analysis (Deerwester and
    others 1990): counts of content words as
    (1 + log count) · (1 + log((1 + n) ÷ (1 + texts with it))), each text scaled to length 1,
    projected on the ``WORD_DIRECTIONS`` largest singular vectors of the texts ``words``, and scaled
    to length 1 again; zeros for a text without a known word. It needs no network, and works for any
    language. ``None`` if there are too few texts or words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize
    from sklearn.utils.extmath import randomized_svd

    weights = TfidfVectorizer(
        analyzer=content_words, sublinear_tf=True, min_df=MIN_ROWS, max_features=MAX_WORDS
    )
    try:
        table = weights.fit_transform(words)
    except ValueError:  # no word is in two texts
        return None
    n_directions = min(WORD_DIRECTIONS, min(table.shape) - 1)
    if n_directions < 2:
        return None
    directions = randomized_svd(table, n_directions, random_state=0)[2].T
    return lambda words: np.asarray(normalize(weights.transform(words) @ directions))


def partition(vectors: Floats, k: int, seed: int) -> KMeans:
    """Clusters of vectors [n, d] by k-means (Lloyd 1982), from one k-means++ start (Arthur and
    Vassilvitskii 2007). One start is enough: clusters are only candidates."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different rows than clusters: some clusters stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(k, n_init=1, random_state=seed).fit(vectors)


def terms_of(words: Sequence[Sequence[str]], group_of_row: Ints, k: int) -> list[tuple[str, ...]]:
    """The words that distinguish each group from the others, [k] of at most three: those with the
    largest log-odds of a row having them, with one row of each kind added, times the root of their
    rows. Function words and words of fewer than three letters are left out."""
    rows = [{w for w in row if w not in FUNCTION and len(w) >= MIN_LETTERS} for row in words]
    total_counts = Counter(word for row in rows for word in row)
    terms = []
    for number in range(k):
        group_rows = np.flatnonzero(group_of_row == number)
        inside = Counter(word for place in group_rows for word in rows[place])
        n, others = len(group_rows), len(rows) - len(group_rows)
        scores = {
            word: np.log((count + 1) / (n + 2) / ((total_counts[word] - count + 1) / (others + 2)))
            * np.sqrt(count)
            for word, count in inside.items()
            if count >= 2 and not word.isdigit()
        }
        ranked = sorted(scores, key=lambda word: (-scores[word], word))
        terms.append(tuple(word for word in ranked[:TERMS] if scores[word] > 0))
    return terms
