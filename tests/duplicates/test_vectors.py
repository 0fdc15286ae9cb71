"""The search for near rows, against every pair compared."""

from __future__ import annotations

import numpy as np
import pytest

import holdfast.duplicates.vectors as room
from holdfast.duplicates.vectors import nearest_neighbours, shared_similarity, similar_pairs


def unit(n: int, d: int, seed: int = 0):
    made = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_the_nearest_are_those_of_all_pairs(monkeypatch) -> None:
    monkeypatch.setattr(room, "SIMILARITIES_AT_ONCE", 700)  # several blocks
    vectors = unit(61, 8)
    cells = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(cells, -2)
    found = nearest_neighbours(vectors, 4)
    assert (found.index == np.argsort(-cells, axis=1)[:, :4]).all()
    assert np.allclose(found.similarity, -np.sort(-cells, axis=1)[:, :4], atol=1e-6)


def test_the_nearest_among_others() -> None:
    vectors, pool = unit(20, 5), unit(30, 5, seed=1)
    found = nearest_neighbours(vectors, 3, pool)
    assert (found.index == np.argsort(-(vectors @ pool.T), axis=1)[:, :3]).all()


def test_a_pair_stands_once_and_the_most_similar_first() -> None:
    vectors = np.concatenate([unit(50, 16), unit(50, 16)])
    found = similar_pairs(vectors, 0.999)
    assert sorted(found.first.tolist()) == list(range(50))
    assert (found.second - found.first == 50).all()
    assert (np.diff(found.similarity) <= 0).all()


def test_a_crowd_of_equal_rows_gives_every_row_a_pair_and_not_all_pairs() -> None:
    vectors = np.repeat(unit(1, 8), 500, axis=0)
    found = similar_pairs(vectors, 0.99)
    assert len(found) <= 500 * room.NEIGHBOURS
    assert set(found.first.tolist()) | set(found.second.tolist()) == set(range(500))


def test_the_graph_finds_what_all_pairs_find(monkeypatch) -> None:
    pytest.importorskip("usearch")
    vectors = np.concatenate([unit(400, 24), unit(100, 24)])
    exact = similar_pairs(vectors, 0.99)
    monkeypatch.setattr(room, "EXACT_ROWS", 10)
    found = similar_pairs(vectors, 0.99)
    assert {*zip(found.first, found.second, strict=True)} == {
        *zip(exact.first, exact.second, strict=True)
    }


def test_what_is_shared_is_the_mean_of_all_pairs() -> None:
    vectors = unit(40, 6) + 0.7
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cells = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    mean = (cells.sum() - np.trace(cells)) / (40 * 39)
    assert shared_similarity(vectors) == pytest.approx(mean, abs=1e-6)


def test_few_rows_have_few_neighbours() -> None:
    assert nearest_neighbours(unit(1, 3)).index.shape == (1, 0)
    assert nearest_neighbours(unit(3, 3), 10).index.shape == (3, 2)
    assert len(similar_pairs(unit(0, 3), 0.5)) == 0
