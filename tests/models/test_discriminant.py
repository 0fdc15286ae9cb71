"""Shrinkage discriminant analysis against scikit-learn, and the mean of two heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from holdfast.core.errors import ModelError
from holdfast.models.probes.head_fit import (
    DEVIATION,
    SHRINKAGES,
    calibration,
    choose_shrinkage,
    class_statistics,
    fit_discriminant,
    fit_head,
    refit_probe,
)
from holdfast.models.probes.logistic import logits_of
from holdfast.models.probes.probe import ExtraRows, fit_probe, stratified_folds


def correlated(n: int, classes: int, width: int, seed: int = 0) -> tuple[Any, Any]:
    """Classes whose means differ along directions in which the rows hardly vary."""
    labels = np.arange(n) % classes
    noise = np.random.default_rng(seed).normal(size=(n, width)) * np.linspace(3.0, 0.2, width)
    means = np.random.default_rng(99).normal(size=(classes, width)) * np.linspace(0.1, 0.3, width)
    return means[labels] + noise, labels


@pytest.mark.parametrize("shrinkage", [0.05, 0.5, 1.0])
@pytest.mark.parametrize(("n", "width"), [(90, 12), (30, 40)])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_table_at_a_shrinkage_is_that_of_scikit_learn(
    shrinkage: float, n: int, width: int, classes: int
) -> None:
    x, y = correlated(n, classes, width)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)
    logits = logits_of(class_statistics(x, y).table(shrinkage), x)
    found = special.softmax(logits, axis=1)
    np.testing.assert_allclose(found, oracle.predict_proba(x), atol=1e-8)


def test_a_row_of_weight_two_is_the_row_twice() -> None:
    x, y = correlated(40, 3, 6)
    weights = np.where(np.arange(40) < 15, 2.0, 1.0)
    twice = np.concatenate([x, x[:15]]), np.concatenate([y, y[:15]])
    table = class_statistics(x, y, weights).table(0.3)
    np.testing.assert_allclose(table, class_statistics(*twice).table(0.3), atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_shrinkage_is_the_best_of_all_folds_of_scikit_learn(seed: int) -> None:
    x, y = correlated(80, 3, 30, seed)
    folds = stratified_folds(y, 5, seed)
    losses = {}
    for shrinkage in SHRINKAGES:
        logits = np.zeros((80, 3))
        for fold in range(5):
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
            model.fit(x[folds != fold], y[folds != fold])
            logits[folds == fold] = model.decision_function(x[folds == fold])
        losses[shrinkage] = calibration(logits, y)
    chosen = choose_shrinkage(x, y, seed)
    best = min(losses, key=lambda one: losses[one][2])
    assert chosen.shrinkage == best
    assert chosen.scale == pytest.approx(losses[best][0], rel=1e-4)
    assert chosen.loss == pytest.approx(losses[best][2], rel=1e-5)


def test_the_calibration_is_the_minimum_of_what_it_says() -> None:
    random = np.random.default_rng(4)
    y = random.choice(4, size=70, p=[0.6, 0.2, 0.2, 0.0])
    logits = 3 * random.normal(size=(70, 4)) + 4 * np.eye(4)[y]

    def value(flat: Any) -> float:
        logs = special.log_softmax(logits * np.exp(flat[0]) + [*flat[1:], 0.0], axis=1)
        prior = (flat[1:] ** 2).sum() / (2 * DEVIATION**2)
        return float(prior - logs[np.arange(70), y].sum() - logs.mean())

    found = minimize(value, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-6}).x
    scale, shift, loss = calibration(logits, y)
    assert scale == pytest.approx(np.exp(found[0]), rel=1e-2)
    assert shift == pytest.approx([*found[1:], 0.0], abs=1e-2)
    logs = special.log_softmax(logits * scale + shift, axis=1)
    assert loss == pytest.approx(-logs[np.arange(70), y].mean())


def test_answers_have_the_shares_of_the_classes_although_they_are_tempered() -> None:
    """Features that say nothing: a class of one row in ten is answered with one in ten."""
    x = np.random.default_rng(0).normal(size=(300, 20))
    y = (np.arange(300) % 10 == 0).astype(int)
    probe = fit_discriminant(x, y, classes=2, seed=0)
    assert probe is not None
    fresh = special.softmax(probe.logits(np.random.default_rng(1).normal(size=(500, 20))), axis=1)
    assert fresh[:, 1].mean() == pytest.approx(0.1, abs=0.03)


def test_shifting_and_scaling_the_features_changes_no_answer() -> None:
    x, y = correlated(60, 3, 8)
    plain = fit_discriminant(x, y, classes=3, seed=0)
    moved = fit_discriminant(x * 1000 + 77, y, classes=3, seed=0)
    assert plain is not None
    assert moved is not None
    np.testing.assert_allclose(moved.logits(x * 1000 + 77), plain.logits(x), atol=1e-6)


def test_the_mean_of_both_is_a_mean_and_says_what_it_is_made_of() -> None:
    x, y = correlated(80, 3, 20)
    both, logistic, other = (
        fit_head(x, y, classes=4, seed=1, head_type=kind)
        for kind in ("both", "logistic", "discriminant")
    )
    np.testing.assert_allclose(both.logits(x), (logistic.logits(x) + other.logits(x)) / 2)
    assert both.held_out is not None
    assert np.allclose(both.held_out, (logistic.held_out + other.held_out) / 2)
    assert both.logits(x).argmax(axis=1).max() <= 2
    for word in ("mean of logistic regression", "shrinkage", "out of fold"):
        assert word in both.because
    assert logistic.weight == pytest.approx(fit_probe(x, y, classes=4, seed=1).weight)


def test_where_rows_vary_in_directions_that_say_nothing_it_beats_logistic_regression() -> None:
    (x, y), (tested, truth) = correlated(150, 2, 30), correlated(3000, 2, 30, 1)
    right = {
        kind: (fit_head(x, y, classes=2, seed=0, head_type=kind).logits(tested).argmax(1) == truth)
        for kind in ("logistic", "discriminant")
    }
    assert right["discriminant"].mean() > right["logistic"].mean() + 0.01


def test_rows_beside_are_learned_from_and_move_no_fold() -> None:
    x, y = correlated(60, 3, 10)
    beside = ExtraRows(x[:9] + 0.1, y[:9], np.full(9, 2.0))
    plain, more = (
        fit_discriminant(x, y, classes=3, seed=0, extra_rows=one) for one in (None, beside)
    )
    nothing = fit_discriminant(
        x, y, classes=3, seed=0, extra_rows=ExtraRows(x[:2], y[:2], np.zeros(2))
    )
    assert plain is not None
    assert more is not None
    assert nothing is not None
    assert np.allclose(nothing.weight, plain.weight)
    assert not np.allclose(more.weight, plain.weight)
    assert more.held_out is not None
    assert more.held_out.shape == (60, 3)
    doubled = np.concatenate([x, np.repeat(beside.features, 2, axis=0)])
    table = class_statistics(doubled, np.concatenate([y, np.repeat(y[:9], 2)])).table(
        more.shrinkage or 0
    )
    ratio = (more.weight - more.weight[:1])[1:] / (table[:, :-1] - table[:1, :-1])[1:]
    assert np.ptp(ratio) / abs(ratio.mean()) < 0.05


def test_a_class_that_only_rows_beside_have_is_learned() -> None:
    x, y = correlated(40, 2, 5)
    beside = ExtraRows(np.full((3, 5), 9.0), np.full(3, 2), np.ones(3))
    probe = fit_head(x, y, classes=4, seed=0, extra_rows=beside)
    assert probe.logits(np.full((1, 5), 9.0)).argmax() == 2
    assert np.isfinite(probe.bias).all()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.ones((3, 2)), np.array([1, 1, 1])),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])),
    ],
)
def test_rows_that_cannot_say_how_to_shrink_get_logistic_regression(x: Any, y: Any) -> None:
    assert fit_discriminant(x, y, classes=3, seed=0) is None
    probe = fit_head(x, y, classes=3, seed=0)
    assert probe.because.startswith("logistic regression only")
    assert np.array_equal(probe.weight, fit_probe(x, y, classes=3, seed=0).weight)
    assert probe.shrinkage is None


def test_rows_that_are_their_classes_means_give_numbers() -> None:
    x = np.repeat(np.eye(3), 4, axis=0)
    y = np.repeat(np.arange(3), 4)
    probe = fit_head(x, y, classes=3, seed=0, head_type="discriminant")
    assert np.isfinite(probe.weight).all()
    assert (probe.logits(x).argmax(axis=1) == y).all()


@pytest.mark.parametrize("kind", ["both", "logistic", "discriminant"])
def test_fitted_again_it_is_of_the_same_kind_and_strength(kind: Any) -> None:
    x, y = correlated(80, 3, 10)
    probe = fit_head(x, y, classes=3, seed=0, head_type=kind)
    again = refit_probe(probe, x, y, classes=3, seed=0)
    assert again.weight == pytest.approx(probe.weight, abs=1e-3)
    assert (again.c, again.shrinkage) == (probe.c, probe.shrinkage)


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="finite"):
        fit_discriminant(np.array([[np.nan], [1.0]]), np.array([0, 1]), classes=2, seed=0)
