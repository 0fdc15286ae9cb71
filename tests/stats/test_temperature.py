from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.special import log_softmax

from holdfast.stats.temperature import (
    COLDEST,
    HOTTEST,
    best_temperature,
    cross_fitted_losses,
    losses_at,
    recover_labels,
)


def _logits(seed: int, n: int = 200, classes: int = 4, scale: float = 2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.0
    return (scale * logits).astype(np.float32), labels


@given(st.integers(0, 1000), st.floats(0.05, 20))
@settings(max_examples=40)
def test_it_is_the_optimum_that_scipy_finds(seed: int, scale: float) -> None:
    logits, labels = _logits(seed, scale=scale)

    def loss(log_inverse: float) -> float:
        scaled = log_softmax(logits.astype(float) * np.exp(log_inverse), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    oracle = optimize.minimize_scalar(
        loss, bounds=(-4.6, 4.6), method="bounded", options={"xatol": 1e-9}
    )
    temperature, value = best_temperature(logits, labels)
    assert value == pytest.approx(oracle.fun, abs=1e-8)
    assert temperature == pytest.approx(np.exp(-oracle.x), rel=1e-3)


def test_scaling_logits_scales_the_temperature_and_keeps_the_loss() -> None:
    logits, labels = _logits(0)
    temperature, loss = best_temperature(logits, labels)
    hotter, same = best_temperature(7 * logits, labels)
    assert hotter == pytest.approx(7 * temperature, rel=1e-5)
    assert same == pytest.approx(loss, rel=1e-6)


def test_the_refined_loss_is_never_above_the_raw_one() -> None:
    logits, labels = _logits(3, scale=5)
    assert best_temperature(logits, labels)[1] <= losses_at(logits, labels, 1.0).mean()


def test_perfectly_separated_rows_reach_the_stated_bound() -> None:
    temperature, loss = best_temperature(np.eye(3)[[0, 1, 2]] * 0.5, np.arange(3))
    assert temperature == pytest.approx(COLDEST, rel=1e-6)
    assert loss == pytest.approx(0.0, abs=1e-9)


def test_misleading_logits_reach_the_other_bound() -> None:
    logits = np.eye(3)[[1, 2, 0]] * 5
    temperature, loss = best_temperature(logits, np.arange(3))
    assert temperature == pytest.approx(HOTTEST, rel=1e-6)
    assert loss == pytest.approx(np.log(3), abs=0.1)


def test_smoothing_keeps_a_separated_set_moderate_and_fades_with_n() -> None:
    logits = np.eye(3)[np.arange(30) % 3] * 5
    smooth = best_temperature(logits, np.arange(30) % 3, smoothing=1.0)[0]
    assert 0.5 < smooth < 3.0
    noisy, labels = _logits(0, n=20000)
    plain = best_temperature(noisy, labels)[0]
    assert best_temperature(noisy, labels, smoothing=1.0)[0] == pytest.approx(plain, rel=1e-3)


def test_equal_logits_have_the_loss_of_ignorance() -> None:
    for smoothing in (0.0, 1.0):
        found = best_temperature(np.ones((5, 4)), np.zeros(5, int), smoothing=smoothing)
        assert found == pytest.approx((1.0, np.log(4)))


@pytest.mark.parametrize("logits", [np.zeros((0, 3)), np.array([[np.nan, 1.0]])])
def test_no_rows_or_broken_logits_give_nan(logits: np.ndarray) -> None:
    temperature, loss = best_temperature(logits, np.zeros(len(logits), dtype=int))
    assert temperature == 1.0
    assert np.isnan(loss)


def test_huge_logits_do_not_overflow() -> None:
    logits, labels = _logits(0, scale=1e4)
    temperature, loss = best_temperature(logits, labels)
    assert temperature == pytest.approx(HOTTEST)
    assert np.isfinite(loss)


def test_cross_fitting_takes_the_optimism_out() -> None:
    """Over many small sets, the cross-fitted mean is above the fitted one by about 1/2n to 1/n,
    and near the loss of that temperature on new rows."""
    gaps, truths = [], []
    for seed in range(60):
        logits, labels = _logits(seed, n=40)
        fresh, fresh_labels = _logits(seed + 1000, n=4000)
        temperature, fitted = best_temperature(logits, labels)
        honest = cross_fitted_losses(logits, labels, seed=np.random.default_rng(seed)).mean()
        gaps.append(honest - fitted)
        truths.append(losses_at(fresh, fresh_labels, temperature).mean() - fitted)
    assert np.mean(gaps) > 0
    assert np.mean(gaps) < 0.1
    assert np.mean(truths) > -0.1


def test_cross_fitting_never_fits_on_a_rows_own_group() -> None:
    logits, labels = _logits(0, n=60)
    groups = np.arange(60) // 30
    honest = cross_fitted_losses(logits, labels, seed=np.random.default_rng(0), groups=groups)
    other = best_temperature(logits[groups == 1], labels[groups == 1])[0]
    expected = losses_at(logits[groups == 0], labels[groups == 0], other)
    assert honest[groups == 0] == pytest.approx(expected)


def test_labels_come_back_from_losses() -> None:
    logits, labels = _logits(5, n=500, classes=9)
    losses = losses_at(logits, labels, 1.0).astype(np.float32)
    assert np.array_equal(recover_labels(logits, losses), labels)


def test_labels_of_nearly_equal_logits_come_back_from_what_was_correct() -> None:
    """A model that learned nothing gives every class the same loss, to the last digit."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    logits = rng.normal(0, 1e-9, (200, 2)).astype(np.float32)
    losses = losses_at(logits, labels, 1.0).astype(np.float32)
    assert not np.array_equal(recover_labels(logits, losses), labels)
    correct = logits.argmax(axis=1) == labels
    assert np.array_equal(recover_labels(logits, losses, correct), labels)
