"""The words of texts as a sparse table: what a probe reads beside the vectors of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Words and word pairs; a mark is a word of its own, as it may be what decides.
_PARTS = re.compile(r"\w+|[^\w\s]")
LEAST_ROWS = 2
MOST_WORDS = 50_000
# Of a long text the beginning says what it is about; a novel in a cell takes no minutes.
MOST_PARTS = 2000


def word_features(texts: Sequence[str]) -> csr_matrix:
    """Weights of words and of pairs of neighbouring words [n, words], each row of length 1.

    A weight is (1 + log count in the text) · (1 + log((1 + n) ÷ (1 + texts that have it))), as
    scikit-learn's ``TfidfVectorizer(sublinear_tf=True)`` has it. What stands in fewer than two
    texts is left out, and all but the 50,000 most frequent. Case is no matter.
    """
    from scipy.sparse import csr_matrix

    counted = [_parts(text) for text in texts]
    rows_with = Counter(part for row in counted for part in row)
    kept = [part for part, n in rows_with.items() if n >= LEAST_ROWS]
    if len(kept) > MOST_WORDS:
        kept = sorted(kept, key=lambda part: (-rows_with[part], part))[:MOST_WORDS]
    place = {part: at for at, part in enumerate(kept)}
    rarity = 1 + np.log((1 + len(texts)) / (1 + np.array([rows_with[part] for part in kept])))
    columns, counts, ends = [], [], [0]
    for row in counted:
        known = [(place[part], n) for part, n in row.items() if part in place]
        columns += [at for at, _ in known]
        counts += [n for _, n in known]
        ends.append(len(columns))
    at = np.asarray(columns, dtype=np.int32)
    weights = (1 + np.log(np.asarray(counts, dtype=np.float64))) * rarity[at]
    table = csr_matrix((weights, at, np.asarray(ends)), shape=(len(texts), max(1, len(kept))))
    lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).reshape(-1))
    table.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(table.indptr))
    return table


def _parts(text: str) -> Counter[str]:
    words = _PARTS.findall(text.casefold())[:MOST_PARTS]
    return Counter([*words, *map(" ".join, pairwise(words))])
