"""How much a table's rows differ: in a model's space, and in their words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from holdfast.core.seeds import generator
from holdfast.duplicates.vectors import Vectors

_WORD = re.compile(r"\w+")


def effective_rows(vectors: Vectors) -> float:
    """The Vendi score (Friedman and Dieng 2022, 2210.02410): exp of the entropy, in nats, of the
    eigenvalues of the rows' similarity matrix ÷ n. It is 1 where all rows are alike and n where no
    row resembles another, but never above the dimension.

    The similarity is the cosine after the mean of all rows is taken off, or the score of a space
    that uses a narrow cone of itself would say that all texts are alike. The non-zero eigenvalues
    of the n × n matrix are those of the d × d one, which is what is computed. ``vectors`` [n, d];
    fewer than two different rows: 1.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1)
    centred = centred[length > 1e-6] / length[length > 1e-6, None]
    if not len(centred):
        return 1.0
    found = np.linalg.eigvalsh(centred.T @ centred / len(centred))
    found = found[found > 1e-12]
    return float(np.exp(-(found * np.log(found)).sum()))


def vocabulary_growth(texts: Sequence[str], seed: int) -> tuple[float, int]:
    """The exponent β of Heaps' law V = K·Nᵝ (Heaps 1978) between half of the running words and all
    of them, the rows in random order; and the running words N. β = log2(V(N) ÷ V(N/2)): 1 where
    every word is new, 0 where no new one comes. English rows have 0.4 to 0.8; rows that are made
    from a few forms far less."""
    rows = [_WORD.findall(text.casefold()) for text in texts]
    order = generator(seed, "vocabulary growth").permutation(len(rows))
    words = [word for at in order.tolist() for word in rows[at]]
    half = len({*words[: len(words) // 2]})
    if not half:
        return 1.0, len(words)
    return float(np.log2(len({*words}) / half)), len(words)
