"""Two sets of rows from one place, and from two: against scikit-learn, SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression

from holdfast.quality.two_samples import (
    classifier_two_sample_test,
    cluster_topics,
    discriminating_words,
    lasso,
    proportions_p_value,
    sparse_weights,
)


def unit(rng, n: int, d: int = 12, lean: float = 0.0):
    made = rng.normal(size=(n, d)) + lean
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def test_two_places_are_told_apart_and_one_is_not() -> None:
    rng = np.random.default_rng(0)
    far = classifier_two_sample_test(unit(rng, 120), unit(rng, 80, lean=0.5), 0, 0.99)
    assert far.area.low > 0.7
    assert far.other.mean() > far.one.mean()
    near = classifier_two_sample_test(unit(rng, 120), unit(rng, 80), 0, 0.99)
    assert near.area.low < 0.5 < near.area.high


def test_rows_of_one_place_are_told_apart_no_more_often_than_said() -> None:
    rng = np.random.default_rng(1)
    # One side: a level of 0.9 errs once in twenty upwards.
    alarms = sum(
        classifier_two_sample_test(unit(rng, 60, 20), unit(rng, 40, 20), seed, 0.9).area.low > 0.5
        for seed in range(120)
    )
    assert alarms <= 11  # the 97.5 % point of 120 at 5 %; DeLong's own interval gives 15


def test_few_rows_are_not_judged() -> None:
    rng = np.random.default_rng(0)
    assert classifier_two_sample_test(unit(rng, 19), unit(rng, 500), 0, 0.95) is None


def test_the_sparse_model_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((300, 15)) < 0.3).astype(float)
    y = (rng.random(300) < 1 / (1 + np.exp(-(2 * x[:, 0] - 1.5 * x[:, 1])))).astype(float)
    penalty = 0.02
    table = np.zeros(16)
    for _ in range(5):
        table = lasso(csr_array(x), y, penalty, table, 4 / (1.05 * 300))
    for step in (0.5, 0.5, 0.5):
        for _ in range(4):
            table = lasso(csr_array(x), y, penalty, table, step)
    oracle = LogisticRegression(
        l1_ratio=1, C=1 / (penalty * 300), solver="saga", tol=1e-7, max_iter=20000
    ).fit(x, y)
    assert table[:-1] == pytest.approx(oracle.coef_[0], abs=0.01)
    assert table[-1] == pytest.approx(oracle.intercept_[0], abs=0.01)


def test_the_path_ends_where_enough_words_are_left() -> None:
    rng = np.random.default_rng(0)
    x = csr_array((rng.random((200, 30)) < 0.3).astype(float))
    y = (rng.random(200) < 0.2 + 0.6 * x.toarray()[:, 3]).astype(float)
    weights = sparse_weights(x, y, 1)
    assert np.abs(weights).argmax() == 3


def test_words_that_tell() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(60)])
    one = [" ".join(rng.choice(words, 8)) for _ in range(150)]
    other = [" ".join([*rng.choice(words, 8), "invoice"][: 9 - i % 4 // 3]) for i in range(150)]
    found = discriminating_words(one, other)
    assert [term.word for term in found] == ["invoice"]
    assert found[0].one == 0
    assert found[0].other == pytest.approx(0.75, abs=0.02)
    assert discriminating_words(one[:75], one[75:]) == []


def test_shares_are_compared_by_the_chi_square_test() -> None:
    one, other = np.array([40, 60, 30]), np.array([25, 20, 45])
    expected = chi2_contingency(np.stack([one, other]), correction=False).pvalue
    assert proportions_p_value(one, other) == pytest.approx(expected)


def test_rare_kinds_are_taken_together() -> None:
    one, other = np.array([90, 3, 1, 0, 2]), np.array([85, 1, 3, 1, 1])
    merged = np.array([[90, 6], [85, 6]])
    expected = chi2_contingency(merged, correction=False).pvalue
    assert proportions_p_value(one, other) == pytest.approx(expected)
    assert proportions_p_value(np.array([9, 0]), np.array([8, 0])) == 1.0
    assert proportions_p_value(np.array([0, 0]), np.array([8, 3])) == 1.0


def test_topics_are_the_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(5)[np.arange(100) % 5]
    vectors = centres + rng.normal(0, 0.05, (100, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = cluster_topics(vectors.astype(np.float32), 0)
    assert len({*zip(found.tolist(), (np.arange(100) % 5).tolist(), strict=True)}) == 5
    assert (found == cluster_topics(vectors.astype(np.float32), 0)).all()
    assert len(np.unique(cluster_topics(np.ones((30, 3), np.float32) / np.sqrt(3), 0))) == 1
