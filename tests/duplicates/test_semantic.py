"""Paraphrases: what all rows share is taken off, and numbers and negations count."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.duplicates.semantic import MIN_AGREEMENT, paraphrases, same_numbers_and_negation
from holdfast.duplicates.vectors import shared_similarity


def rows(shared: float, apart: float, n: int = 200):
    """Unit vectors that share a direction; the last leans from the first by ``apart``."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(n, 128))
    own -= own.mean(axis=0)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    # cos(a, b) = shared + (1 − shared) · cos of the own parts.
    last = own[0] * (1 - apart) + own[1] * np.sqrt(1 - (1 - apart) ** 2)
    own = np.concatenate([own, last[None] / np.linalg.norm(last)])
    made = np.column_stack([np.full(n + 1, np.sqrt(shared)), own * np.sqrt(1 - shared)])
    return made.astype(np.float32)


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(("apart", "found"), [(0.03, True), (0.15, False)])
def test_agreement_does_not_depend_on_what_all_rows_share(shared, apart, found) -> None:
    vectors = rows(shared, apart)
    pairs = paraphrases(vectors, ["text"] * len(vectors))
    assert ([0, 200] in np.column_stack([pairs.first, pairs.second]).tolist()) == found
    if found:
        # By hand: the cosine, less what is shared, over what is left.
        cosine, mean = float(vectors[0] @ vectors[200]), shared_similarity(vectors)
        assert pairs.similarity[0] == pytest.approx((cosine - mean) / (1 - mean), abs=1e-5)
        assert pairs.similarity[0] >= MIN_AGREEMENT


def test_other_numbers_or_one_negation_refuse_a_pair() -> None:
    vectors = rows(0.1, 0.01)
    texts = ["text"] * 200
    for one, other, kept in [
        ("pay 5 now", "now pay 5", 1),
        ("pay 5 now", "pay 50 now", 0),
        ("it works", "it doesn't work", 0),
        ("i do n 't like it", "i dont like it", 1),
    ]:
        assert len(paraphrases(vectors, [one, *texts[1:], other])) == kept
        assert same_numbers_and_negation(one, other) == bool(kept)


def test_rows_of_one_text_have_no_paraphrases() -> None:
    assert len(paraphrases(np.ones((30, 1), np.float32), ["a"] * 30)) == 0
