"""Each method against another way to compute it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from torch import nn

from holdfast.core.records import unit_rows
from holdfast.plugins.episodes.methods import (
    DISTANCE,
    RIDGE_STRENGTH,
    Embedding,
    FeatureReader,
    Prototypes,
    Step,
    cached_vectors,
    distance_scale,
    distances,
    readout_logits,
    score_episodes,
    with_scale,
)
from holdfast.plugins.episodes.tasks import EpisodeShape, TaskPool

SHAPE = EpisodeShape(3, 2, 4)
Small = Callable[..., tuple[FeatureReader, TaskPool]]


def step_of(reader: FeatureReader, pool: TaskPool) -> Step:
    return Step(reader, pool, SHAPE, 0, 0)


def test_distances_are_those_to_the_means() -> None:
    torch.manual_seed(0)
    support, query = torch.randn(4, 3, 7), torch.randn(9, 7)
    wanted = torch.cdist(query, support.mean(dim=1)) ** 2
    assert torch.allclose(distances(support, query), wanted, atol=1e-4)


def test_a_row_is_of_the_nearest_prototype_as_scikit_learn_has_it(small: Small) -> None:
    reader, pool = small()
    for index in range(5):
        one = pool.draw(SHAPE, 0, "test", index)
        logits = Prototypes().query_logits(reader, one, cached_vectors(reader, [one]))
        plain = NearestCentroid().fit(reader.vectors(one.support.ravel()), one.support_labels)
        assert np.array_equal(
            logits.argmax(axis=1), plain.predict(reader.vectors(one.query.ravel()))
        )


def test_prototypes_learn_from_the_query_rows_loss(small: Small) -> None:
    reader, pool = small()
    one = pool.draw(SHAPE, 0, "train", 0)
    loss = Prototypes().update(step_of(reader, pool))
    other = copy.deepcopy(reader.network)
    other.zero_grad()
    x = reader.examples.x
    means = other.features(x[one.support.ravel()]).reshape(3, 2, -1).mean(dim=1)
    gaps = torch.cdist(other.features(x[one.query.ravel()]), means) ** 2
    wanted = nn.functional.nll_loss(
        torch.log_softmax(-0.7 * gaps, dim=1), torch.arange(3).repeat_interleave(4)
    )
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    for found, weight in zip(reader.trainable, other.body.parameters(), strict=True):
        assert torch.allclose(found.grad, weight.grad, atol=1e-5)


def test_meeting_a_task_leaves_everything_as_it_was(small: Small) -> None:
    reader, pool, method = *small(norm=True), Prototypes()
    before = {k: v.clone() for k, v in reader.network.state_dict().items()}
    drawn = pool.episodes(SHAPE, 3, 0, "test")
    first, again = score_episodes(method, reader, drawn), score_episodes(method, reader, drawn)
    assert np.array_equal(first.accuracy, again.accuracy)
    after = reader.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_baseline_learns_a_row_from_the_classes_of_its_own_task(small: Small) -> None:
    reader, pool = small()
    method = Embedding(pool, 5)
    assert method.head is not None
    torch.manual_seed(5)
    nn.init.normal_(method.head.weight)
    # 18 rows of 96, drawn as the method draws them.
    from holdfast.core.seeds import generator

    chosen = generator(0, "batch", 0).choice(96, 18, replace=False)
    with torch.no_grad():
        logits = method.head(0.7**0.5 * reader.features(chosen))
    losses = []
    for row, line in zip(chosen.tolist(), logits, strict=True):
        first = 4 * (row // 48)
        own = line[first : first + 4]
        losses.append(nn.functional.cross_entropy(own[None], torch.tensor([row // 12 - first])))
    found = method.update(step_of(reader, pool))
    assert found == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_a_refitted_head_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    support, query = rng.standard_normal((15, 6)), rng.standard_normal((30, 6))
    labels = np.repeat(np.arange(5), 3)
    plain = LogisticRegression(C=RIDGE_STRENGTH, max_iter=1000, tol=1e-8)
    plain.fit(unit_rows(support), labels)
    wanted = plain.predict_log_proba(unit_rows(query))
    logits = readout_logits("logistic", support, labels, query)
    logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    # Ours ends where the gradient is small, its own nearer to the minimum.
    assert np.allclose(logits, wanted, atol=0.06)
    nearest = NearestCentroid().fit(unit_rows(support), labels).predict(unit_rows(query))
    assert np.array_equal(
        readout_logits("centroid", support, labels, query).argmax(axis=1), nearest
    )


def test_distances_begin_at_one_size_whatever_the_features(small: Small) -> None:
    rng = np.random.default_rng(1)
    vectors, labels = rng.standard_normal((40, 7)), np.repeat(np.arange(4), 10)
    found = distance_scale(vectors, labels)
    assert distance_scale(10 * vectors, labels) == pytest.approx(found / 100)
    means = np.stack([vectors[labels == c].mean(axis=0) for c in range(4)])
    gaps = [
        ((vectors[i] - means[c]) ** 2).sum() for i in range(40) for c in range(4) if c != labels[i]
    ]
    assert found * np.mean(gaps) == pytest.approx(DISTANCE)
    reader, pool = small(norm=True)
    before = {k: v.clone() for k, v in reader.network.state_dict().items()}
    rows = np.concatenate(pool.tasks[0].rows)
    made = with_scale(reader, rows, np.repeat(np.arange(4), 12))
    assert made.scale != reader.scale
    after = reader.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
