"""H-score and LogME against scikit-learn's covariance and the evidence by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm
from sklearn.covariance import LedoitWolf

from holdfast.models.probes.transferability import h_score, log_evidence

SHAPES = [(60, 12), (30, 50)]


def rows(n: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + 3
    return features, rng.integers(0, 3, n)


@pytest.mark.parametrize(("n", "width"), SHAPES)
def test_the_h_score_is_the_trace_of_shrunken_covariances(n: int, width: int) -> None:
    features, labels = rows(n, width)
    whole = LedoitWolf().fit(features)
    means = np.stack([features[labels == label].mean(axis=0) for label in labels])
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.solve(whole.covariance_, (1 - whole.shrinkage_) * between))
    assert h_score(features, labels) == pytest.approx(expected)


def test_the_h_score_is_all_classes_where_they_are_all_there_is_and_none_without_variance() -> None:
    labels = np.repeat([0, 1, 4], 40)
    corners = np.eye(5)[labels] + 1e-6 * np.random.default_rng(0).normal(size=(120, 5))
    # Two directions tell three classes apart.
    assert h_score(corners, labels) == pytest.approx(2.0, abs=0.1)
    assert h_score(np.ones((9, 4)), np.arange(9) % 3) == 0.0
    features, classes = rows(60, 12)
    assert h_score(features @ np.diag(np.full(12, 7.0)) - 5, classes) == pytest.approx(
        h_score(features, classes)
    )


def test_features_that_are_all_zero_have_the_evidence_of_noise_alone() -> None:
    targets = np.eye(3)[rows(60, 12)[1]]
    noise = norm(0, np.sqrt((targets**2).mean(axis=0)))
    expected = noise.logpdf(targets).mean()
    assert log_evidence(np.zeros((60, 12)), targets) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "width"), SHAPES)
def test_log_evidence_is_the_largest_marginal_likelihood(n: int, width: int) -> None:
    features, labels = rows(n, width)
    targets = np.eye(3)[labels]
    gram, eye = features @ features.T, np.eye(n)

    def lost(logs: np.ndarray, column: int) -> float:
        covariance = np.exp(-logs[1]) * eye + np.exp(-logs[0]) * gram
        found = multivariate_normal.logpdf(targets[:, column], np.zeros(n), covariance)
        return -float(found)

    best = [
        min(
            minimize(lost, start, (column,), method="Nelder-Mead", options={"xatol": 1e-6}).fun
            for start in ([0.0, 0.0], [5.0, 1.0])
        )
        for column in range(3)
    ]
    assert log_evidence(features, targets) == pytest.approx(-np.mean(best) / n, abs=5e-4)


def test_features_that_tell_the_targets_have_more_evidence() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.normal(size=(200, 1))
    telling = np.column_stack(
        [numbers + 0.3 * rng.normal(size=(200, 1)), rng.normal(size=(200, 9))]
    )
    assert log_evidence(telling, numbers) > log_evidence(rng.normal(size=(200, 10)), numbers) + 0.5
