"""Near vectors by sorting, against every pair's product."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.copies import planes
from holdfast.copies.engines import Threads
from holdfast.copies.planes import near_by_planes
from holdfast.core.errors import Defect


def crowded(n: int, seed: int) -> np.ndarray:
    """Unit vectors in clusters, and near-copies of a fifth of them at cosines of about 0.9 to 1."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, 48))
    vectors = centres[rng.integers(0, 12, n)] + 1.5 * rng.standard_normal((n, 48))
    copies = vectors[: n // 5] + rng.uniform(0, 0.8, (n // 5, 1)) * rng.standard_normal(
        (n // 5, 48)
    )
    both = np.concatenate([vectors, copies])
    both -= both.mean(axis=0)
    return (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("least", [0.85, 0.9, 0.95])
def test_nearly_all_pairs_that_comparing_all_finds_and_no_others(least: float) -> None:
    vectors = crowded(3000, seed=1)
    products = np.triu(vectors @ vectors.T, 1)
    expected = set(zip(*(places.tolist() for places in np.nonzero(products >= least)), strict=True))
    links = near_by_planes(vectors, least, seed=3)
    found = set(zip(links.first.tolist(), links.second.tolist(), strict=True))
    assert len(expected) > 100
    assert len(found & expected) >= 0.97 * len(expected)
    assert all(products[pair] >= least - 1e-5 for pair in found)
    assert links.similarity == pytest.approx(products[links.first, links.second], abs=1e-5)
    assert len(found) == len(links)
    assert (np.diff(links.first) >= 0).all()


def test_threads_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = crowded(300, seed=2)
    whole = near_by_planes(vectors, 0.9)
    monkeypatch.setattr(planes, "_ROWS", 64)
    again = near_by_planes(vectors, 0.9, engine=Threads(2))
    assert whole.first.tolist() == again.first.tolist()
    assert whole.second.tolist() == again.second.tolist()


def test_equal_vectors_are_met_and_few_rows_have_few_pairs() -> None:
    one = crowded(50, seed=0)[:3]
    links = near_by_planes(np.concatenate([one, one]), 0.999)
    assert sorted(zip(links.first.tolist(), links.second.tolist(), strict=True)) == [
        (0, 3),
        (1, 4),
        (2, 5),
    ]
    assert len(near_by_planes(one[:1], 0.5)) == len(near_by_planes(one[:0], 0.5)) == 0


def test_more_rows_than_can_be_numbered_are_refused() -> None:
    endless = np.broadcast_to(np.zeros(4, np.float32), ((1 << 24) + 1, 4))
    with pytest.raises(Defect, match=r"at most 2\^24"):
        near_by_planes(endless, 0.9)
