"""Paraphrases: rows with the same meaning, as opposed to rows on the same subject.

A cosine similarity means little by itself: any two questions to a bank are similar. So the mean
similarity of the table's rows (``shared_similarity`` s) is removed first. The adjusted cosine
similarity of a pair, its *agreement*, is (cosine − s) ÷ (1 − s): 0 on average for random rows and 1
for equal texts.

From ``MIN_AGREEMENT`` on pairs are paraphrases, in tables of similar and of varied rows: of 27
random pairs of CR, MR, TREC and BANKING77 at 0.92 … 0.95, the doubtful range, 26 were judged to
have the same meaning. A pair is rejected if numbers differ or only one text has a negation, because
an encoder hardly represents these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Ints
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.duplicates.vectors import SimilarPairs, Vectors, shared_similarity, similar_pairs
from holdfast.duplicates.words import RowTexts

MIN_AGREEMENT = 0.92
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|neither|nor|without|cannot|cant|dont|doesnt|didnt|isnt"
    r"|wasnt|wont|couldnt|wouldnt|havent|hasnt)\b|n ?['’]t\b",
    re.IGNORECASE,
)


def paraphrases(
    vectors: Vectors,
    texts: Sequence[str],
    others: tuple[Vectors, Sequence[str]] | None = None,
    agreement: float = MIN_AGREEMENT,
) -> SimilarPairs:
    """The pairs of rows that paraphrase each other; with ``others``, pairs of a row and one of
    theirs.

    ``vectors`` [n, d] unit length, of ``texts`` [n]; the ``similarity`` of a pair is its adjusted
    cosine similarity. Duplicates by words are included.
    """
    shared = shared_similarity(vectors)
    # If all texts are equal, the adjustment would divide by 0.
    if shared >= 1 - 1e-6:
        nothing = np.empty(0, dtype=np.int64)
        return SimilarPairs(nothing, nothing, nothing.astype(np.float32))
    pool, pool_texts = (None, texts) if others is None else others
    pairs = similar_pairs(vectors, shared + agreement * (1 - shared), pool)
    is_paraphrase = [
        same_numbers_and_negation(texts[a], pool_texts[b])
        for a, b in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    ]
    pairs = pairs.where(np.array(is_paraphrase, dtype=bool))
    agreements = ((pairs.similarity - shared) / (1 - shared)).astype(np.float32)
    return SimilarPairs(pairs.first, pairs.second, np.minimum(agreements, np.float32(1)))


def are_no_duplicates(
    table: Table, first: Ints, other: Table, second: Ints
) -> npt.NDArray[np.bool_]:
    """Which pairs of rows [m], by position, are neither exact nor near-duplicates by words: those
    are found without a model."""
    if not len(first):
        return np.zeros(0, dtype=bool)
    first_rows, at_one = np.unique(first, return_inverse=True)
    second_rows, at_other = np.unique(second, return_inverse=True)
    duplicates = find_duplicates(RowTexts(table.take(first_rows), other.take(second_rows)))
    return np.asarray(duplicates.groups[at_one] != duplicates.groups[at_other + len(first_rows)])


def same_numbers_and_negation(one: str, other: str) -> bool:
    """Whether two texts have the same numbers, and both or neither have a negation.

    >>> same_numbers_and_negation("It costs 5 pounds.", "The price is 5 pounds.")
    True
    >>> same_numbers_and_negation("My card works.", "My card doesn't work.")
    False
    """
    if sorted(_NUMBER.findall(one)) != sorted(_NUMBER.findall(other)):
        return False
    return bool(_NEGATION.search(one)) == bool(_NEGATION.search(other))
