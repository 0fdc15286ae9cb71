"""Label propagation against its closed form."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.models.probes.propagation import WIDTH, neighbour_graph, propagate


def rings(classes: int, each: int, seed: int = 0):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, 12))
    marks = np.repeat(np.arange(classes), each)
    return centres[marks] + 0.45 * random.normal(size=(len(marks), 12)), marks


def by_hand(
    vectors: np.ndarray, labels: np.ndarray, classes: int, alpha: float, k: int, start=None
):
    """(1 − α)(I − αS)^−1 Y on dense matrices."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    graph = np.zeros_like(cosine)
    for i, line in enumerate(cosine):
        near = np.argsort(-line)[:k]
        graph[i, near] = np.exp((line[near] - 1) / WIDTH)
    graph = np.maximum(graph, graph.T)
    root = np.diag(graph.sum(axis=1) ** -0.5)
    start = np.zeros((len(labels), classes)) if start is None else start.copy()
    known = labels >= 0
    start[known] = np.eye(classes)[labels[known]]
    start /= start.sum(axis=0)
    found = np.linalg.solve(np.eye(len(labels)) - alpha * root @ graph @ root, (1 - alpha) * start)
    return found / found.sum(axis=1, keepdims=True)


def test_it_comes_to_the_closed_form() -> None:
    vectors, marks = rings(4, 15)
    labels = np.where(np.arange(len(marks)) % 5 == 0, marks, -1)
    shares = propagate(neighbour_graph(vectors, 6), labels, classes=4, alpha=0.8, steps=200)
    assert shares == pytest.approx(by_hand(vectors, labels, 4, 0.8, 6), abs=1e-5)
    assert (shares.argmax(axis=1) == marks).mean() > 0.9


def test_rows_without_a_label_may_begin_with_shares() -> None:
    vectors, marks = rings(4, 15)
    labels = np.where(np.arange(len(marks)) % 5 == 0, marks, -1)
    start = np.random.default_rng(2).dirichlet(np.ones(4), len(marks))
    graph = neighbour_graph(vectors, 6)
    shares = propagate(graph, labels, classes=4, start=start, alpha=0.8, steps=200)
    assert shares == pytest.approx(by_hand(vectors, labels, 4, 0.8, 6, start), abs=1e-5)
    # What was given is not written into.
    assert start.sum(axis=1) == pytest.approx(1)


def test_rows_taken_off_the_graph_leave_it_as_if_they_had_not_been_there() -> None:
    vectors, marks = rings(3, 12, 1)
    labels = np.where(np.arange(36) % 3 == 0, marks, -1)
    gone = np.arange(36) >= 30
    graph = neighbour_graph(vectors, 35)
    shares = propagate(graph, labels, classes=3, excluded=gone)
    alone = propagate(neighbour_graph(vectors[:30], 29), labels[:30], classes=3)
    assert shares[:30] == pytest.approx(alone, abs=1e-6)
    # The label of a row that is off is not read.
    other = labels.copy()
    other[33] = (other[33] + 1) % 3
    again = propagate(graph, other, classes=3, excluded=gone)
    assert np.array_equal(again[:30], shares[:30])


def test_where_no_label_comes_the_shares_are_even() -> None:
    vectors = np.concatenate([np.tile([1.0, 0.0], (4, 1)), np.tile([0.0, 1.0], (4, 1))])
    vectors += 0.01 * np.random.default_rng(0).normal(size=vectors.shape)
    labels = np.array([0, 1, 1, 0, -1, -1, -1, -1])
    shares = propagate(neighbour_graph(vectors, 2), labels, classes=2)
    assert shares[4:] == pytest.approx(0.5)
