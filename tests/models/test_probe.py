"""The linear probe against scikit-learn and by its own definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import threadpoolctl
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from holdfast.core.errors import ModelError
from holdfast.models.probes.probe import C_GRID, choose_c, fit_probe, stratified_folds
from holdfast.stats import threads


def blobs(n: int, classes: int, width: int, seed: int = 0, spread: float = 2.0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, width))
    labels = np.arange(n) % classes
    return centres[labels] + spread * random.normal(size=(n, width)), labels


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_weights_are_those_of_scikit_learn_on_features_of_unit_variance(
    classes: int, c: float
) -> None:
    x, y = blobs(120, classes, 8)
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0).mean())
    oracle = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x, y)
    probe = fit_probe(x, y, classes=classes, seed=0, c=c)
    chances = np.exp(probe.logits(x))
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances, oracle.predict_proba(x), atol=1e-4)
    if classes > 2:
        np.testing.assert_allclose(probe.weight, oracle.coef_, atol=1e-3)


def test_shifting_and_scaling_the_features_changes_no_answer() -> None:
    x, y = blobs(90, 3, 6)
    plain = fit_probe(x, y, classes=3, seed=0)
    moved = fit_probe(x * 1000 + 77, y, classes=3, seed=0)
    assert plain.c == moved.c
    np.testing.assert_allclose(moved.logits(x * 1000 + 77), plain.logits(x), atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_chosen_c_has_the_smallest_cross_validated_loss_of_all(seed: int) -> None:
    x, y = blobs(150, 3, 20, seed, spread=3.0)
    folds = PredefinedSplit(stratified_folds(y, 5, seed))
    losses = {
        c: log_loss(
            y,
            cross_val_predict(
                LogisticRegression(C=c, max_iter=2000), x, y, cv=folds, method="predict_proba"
            ),
        )
        for c in C_GRID
    }
    chosen, because, seen, _ = choose_c(x, y, seed)
    assert chosen == min(losses, key=lambda c: losses[c])
    assert dict(seen)[chosen] == pytest.approx(losses[chosen], abs=1e-3)
    assert "cross-validation" in because


@pytest.mark.parametrize("classes", [2, 4])
def test_out_of_fold_answers_are_those_of_scikit_learns_folds(classes: int) -> None:
    x, y = blobs(120, classes, 10, 3, spread=3.0)
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0).mean())
    probe = fit_probe(x, y, classes=classes + 1, seed=3)
    oracle = cross_val_predict(
        LogisticRegression(C=probe.c, tol=1e-6, max_iter=5000),
        x,
        y,
        cv=PredefinedSplit(stratified_folds(y, 5, 3)),
        method="predict_proba",
    )
    assert probe.held_out is not None
    chances = np.exp(probe.held_out - probe.held_out.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    # The fits that choose C are stopped early.
    np.testing.assert_allclose(chances[:, :classes], oracle, atol=0.02)
    assert chances[:, classes].max() < 0.01


def test_a_row_of_no_fold_has_no_answer_and_a_given_c_has_none_at_all() -> None:
    x, y = blobs(60, 2, 4)
    y[7] = 2
    probe = fit_probe(x, y, classes=3, seed=0)
    assert probe.held_out is not None
    assert np.flatnonzero(np.isnan(probe.held_out).any(axis=1)).tolist() == [7]
    assert fit_probe(x, y, classes=3, seed=0, c=0.1).held_out is None


def test_noise_is_regularised_harder_than_signal() -> None:
    x, y = blobs(100, 2, 30, spread=0.3)
    noise = np.random.default_rng(0).normal(size=(100, 30))
    signal = fit_probe(x, y, classes=2, seed=0)
    assert fit_probe(noise, y, classes=2, seed=0).c < signal.c
    assert (signal.logits(x).argmax(axis=1) == y).all()


def test_folds_are_stratified_to_within_one_row() -> None:
    y = np.array([0] * 23 + [1] * 7 + [2] * 2 + [3])
    folds = stratified_folds(y, 5, 0)
    for label in range(3):
        counts = np.bincount(folds[y == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(folds[folds >= 0])) <= 1
    assert folds[y == 3] == [-1]
    assert not np.array_equal(folds, stratified_folds(y, 5, 1))


def test_a_class_with_one_row_is_learned() -> None:
    x, y = blobs(41, 2, 5, spread=0.1)
    x[-1], y[-1] = 50.0, 2
    probe = fit_probe(x, y, classes=3, seed=0)
    assert probe.logits(x[-1:]).argmax() == 2


def test_a_class_without_rows_is_never_the_answer() -> None:
    x, y = blobs(40, 2, 5)
    probe = fit_probe(x, y * 2, classes=4, seed=0)
    assert probe.weight.shape == (4, 5)
    assert np.isfinite(probe.bias).all()
    assert set(probe.logits(x).argmax(axis=1)) == {0, 2}


def test_one_class_alone_is_always_the_answer() -> None:
    probe = fit_probe(np.ones((3, 2)), np.array([1, 1, 1]), classes=3, seed=0)
    assert not probe.weight.any()
    assert probe.logits(np.zeros((1, 2))).argmax() == 1


def test_two_rows_of_two_classes_give_an_untested_c_and_say_so() -> None:
    probe = fit_probe(np.array([[0.0], [1.0]]), np.array([0, 1]), classes=2, seed=0)
    assert "too few rows" in probe.because
    assert probe.logits(np.array([[0.0], [1.0]])).argmax(axis=1).tolist() == [0, 1]


def test_the_same_rows_give_the_same_probe() -> None:
    x, y = blobs(80, 3, 6)
    one, two = (fit_probe(x, y, classes=3, seed=4) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert one.c == two.c


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "one row"),
        (np.zeros((3, 2)), np.zeros(2, int), "one row"),
        (np.array([[np.nan], [1.0]]), np.array([0, 1]), "finite"),
        (np.zeros((2, 1)), np.array([0, 2]), "outside 0 to 1"),
        (np.zeros((2, 1)), np.array([-1, 0]), "outside 0 to 1"),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fit_probe(x, y, classes=2, seed=0)


def test_small_products_are_left_to_one_thread_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[set[int]] = []

    def count(*given: Any, **named: Any) -> Any:
        blas = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        used.append({pool["num_threads"] for pool in blas})
        return minimize(*given, **named)

    x, y = blobs(60, 3, 4)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        monkeypatch.setattr("scipy.optimize.minimize", count)
        fit_probe(x, y, classes=3, seed=0, c=1.0)
        pools, _ = threads._pools()
        monkeypatch.setattr(threads, "_pools", lambda: (pools, 2))
        monkeypatch.setattr(threads, "ONE_THREAD", 10)
        fit_probe(x, y, classes=3, seed=0, c=1.0)
    assert used == [{1}, {2}]
