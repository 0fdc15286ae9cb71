from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from holdfast.stats.auc import delong, delong_difference


def _brute(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every positive against every negative: 1 above, ½ equal, and its means by row."""
    pairs = scores[labels][:, None] - scores[~labels][None]
    wins = (pairs > 0) + 0.5 * (pairs == 0)
    return wins.mean(axis=1), wins.mean(axis=0)


def _brute_variance(labels: np.ndarray, *both: np.ndarray) -> float:
    parts = [_brute(labels, scores) for scores in both]
    signs = (1, -1)
    above = sum(s * p[0] for s, p in zip(signs, parts, strict=False))
    below = sum(s * p[1] for s, p in zip(signs, parts, strict=False))
    return float(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))


def _rows(rng: np.random.Generator, n: int, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 3 == 0
    return labels, rng.normal(size=n) + shift * labels


@given(st.integers(0, 10_000), st.integers(6, 40), st.booleans())
@settings(max_examples=40)
def test_the_area_and_its_error_are_those_of_all_pairs(seed: int, n: int, round_: bool) -> None:
    labels, scores = _rows(np.random.default_rng(seed), n)
    scores = np.round(scores) if round_ else scores
    area = delong(labels, scores)
    assert area.value == pytest.approx(roc_auc_score(labels, scores))
    assert area.error == pytest.approx(np.sqrt(_brute_variance(labels, scores)))
    assert area.low <= area.value <= area.high


def test_the_error_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    labels, scores = _rows(rng, 240)
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    draws = []
    for _ in range(800):
        rows = np.concatenate([rng.choice(positive, 80), rng.choice(negative, 160)])
        draws.append(_brute(labels[rows], scores[rows])[0].mean())
    assert delong(labels, scores).error == pytest.approx(np.std(draws), rel=0.1)


@pytest.mark.parametrize(("shift", "n"), [(0.5, 60), (2.5, 60)])
def test_the_interval_covers_by_simulation(shift: float, n: int) -> None:
    from scipy.special import ndtr

    rng, truth, held = np.random.default_rng(0), ndtr(shift / np.sqrt(2)), 0
    for _ in range(400):
        area = delong(*_rows(rng, n, shift))
        held += area.low <= truth <= area.high
    assert 0.93 <= held / 400 <= 0.985


def test_two_areas_of_the_same_rows_are_compared_by_pairs() -> None:
    rng = np.random.default_rng(1)
    labels, first = _rows(rng, 150)
    second = first + rng.normal(size=150) * 0.3
    result = delong_difference(labels, first, second)
    error = np.sqrt(_brute_variance(labels, first, second))
    assert result.value == pytest.approx(
        roc_auc_score(labels, first) - roc_auc_score(labels, second)
    )
    assert (result.high - result.low) / 2 == pytest.approx(1.959964 * error)
    assert error < delong(labels, first).error


def test_equally_good_scores_are_told_apart_in_one_run_of_twenty() -> None:
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(400):
        labels, hidden = _rows(rng, 90)
        noise = rng.normal(size=(2, 90)) * 0.5
        alarms += delong_difference(labels, hidden + noise[0], hidden + noise[1]).p_value < 0.05
    assert 0.025 <= alarms / 400 <= 0.075


def test_perfectly_parted_classes_keep_a_doubt() -> None:
    labels = np.repeat([True, False], [10, 30])
    area = delong(labels, labels.astype(float))
    assert (area.value, area.high, area.error) == (1.0, 1.0, 0.0)
    assert area.low == pytest.approx(0.025 ** (1 / 10))
    assert delong(labels, -labels.astype(float)).high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_the_same_order_is_no_difference() -> None:
    labels, scores = _rows(np.random.default_rng(3), 30)
    same = delong_difference(labels, scores, np.exp(scores))
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_one_class_nan_and_single_rows() -> None:
    scores = np.arange(4.0)
    assert np.isnan(delong(np.ones(4, dtype=bool), scores).value)
    assert np.isnan(delong(np.zeros(0, dtype=bool), np.zeros(0)).value)
    labels = np.array([True, False, False, False])
    assert delong(labels, scores).value == 0.0
    assert np.isnan(delong(labels, scores).low)
    scores[2] = np.nan
    assert np.isnan(delong(labels, scores).value)
    assert np.isnan(delong_difference(labels, scores, scores).p_value)
