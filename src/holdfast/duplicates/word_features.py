"""Texts as sparse vectors of their words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Words and word pairs. A punctuation mark counts as a word, because it may be decisive.
_TOKEN = re.compile(r"\w+|[^\w\s]")
LEAST_ROWS_WITH_WORD = 2
MOST_WORDS = 50_000
# The beginning of a long text shows its subject; without a limit a novel would take minutes.
MAX_TOKENS = 2000


def word_features(texts: Sequence[str]) -> csr_matrix:
    """``tf_idf`` of words and of pairs of neighbouring words [n, words]. Words in fewer than two
    texts are omitted, and all but the 50,000 most frequent. Case is ignored."""
    from scipy.sparse import csr_matrix

    token_counts = [_word_counts(text) for text in texts]
    rows_with = Counter(part for row in token_counts for part in row)
    vocabulary = [part for part, n in rows_with.items() if n >= LEAST_ROWS_WITH_WORD]
    if len(vocabulary) > MOST_WORDS:
        vocabulary = sorted(vocabulary, key=lambda part: (-rows_with[part], part))[:MOST_WORDS]
    column_of = {part: column_index for column_index, part in enumerate(vocabulary)}
    columns, counts, ends = [], [], [0]
    for row in token_counts:
        row_columns = [(column_of[part], n) for part, n in row.items() if part in column_of]
        columns += [column_index for column_index, _ in row_columns]
        counts += [n for _, n in row_columns]
        ends.append(len(columns))
    shape = (len(texts), max(1, len(vocabulary)))
    return tf_idf(csr_matrix((counts, np.asarray(columns, dtype=np.int32), ends), shape=shape))


def tf_idf(counts: csr_matrix) -> csr_matrix:
    """Weights of the words of texts [n, words] from their ``counts``, each row of length 1.

    A weight is (1 + log count in the text) · (1 + log((1 + n) ÷ (1 + texts that have it))), as in
    scikit-learn's ``TfidfVectorizer(sublinear_tf=True)``.
    """
    texts, words = counts.shape
    rows_with = np.bincount(counts.indices, minlength=words)
    inverse_frequency = 1 + np.log((1 + texts) / (1 + rows_with))
    table = counts.astype(np.float64)
    table.data = (1 + np.log(table.data)) * inverse_frequency[table.indices]
    lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).reshape(-1))
    table.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(table.indptr))
    return table


def _word_counts(text: str) -> Counter[str]:
    words = _TOKEN.findall(text.casefold())[:MAX_TOKENS]
    return Counter([*words, *map(" ".join, pairwise(words))])
