"""Intervals of out-of-fold scores: those of fewer rows, by independent oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from holdfast.core.records import Estimate, Outputs
from holdfast.metrics import score as scoring
from holdfast.metrics.score import score, score_out_of_fold, widened
from holdfast.stats.temperature import losses_at

CLASSES = ("no", "yes", "odd")


def outputs_of(n: int, seed: int = 0, groups: Any = None) -> Outputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    logits = rng.normal(size=(n, len(CLASSES)))
    logits[np.arange(n), labels] += 1.5
    return Outputs(np.arange(n), labels, logits, losses_at(logits, labels, 1.0), groups)


def test_accuracy_has_the_score_limits_of_fewer_rows_and_of_a_steeper_curve() -> None:
    """They solve |p̂ − p| = z √(p(1−p)/m), m the effective number of rows; above, p̂ is that of
    models from a quarter more rows on a learning curve of the assumed slope."""
    outputs = outputs_of(90)
    found = score_out_of_fold(outputs, CLASSES, 5, resamples=50).metrics["accuracy"]
    rate = float((outputs.logits.argmax(axis=1) == outputs.labels).mean())
    m, z = 90 / scoring.RATE_EFFECT, norm.ppf(0.975)
    # error(n) = a n^−s through the error of models from four fifths of the rows.
    a = (1 - rate) * (0.8 * 90) ** scoring.SLOPE
    whole = 1 - a * 90**-scoring.SLOPE

    def beyond(p: float, centre: float) -> float:
        return abs(centre - p) - z * np.sqrt(p * (1 - p) / m)

    assert found.value == pytest.approx(rate)
    assert found.low == pytest.approx(brentq(beyond, 1e-9, rate, args=(rate,)))
    assert found.high == pytest.approx(brentq(beyond, whole, 1 - 1e-9, args=(whole,)))
    assert "out of fold" in str(found.note)


def test_every_interval_is_wider_and_the_values_are_the_same() -> None:
    outputs = outputs_of(120, seed=1)
    plain = score(outputs, CLASSES, resamples=100)
    found = score_out_of_fold(outputs, CLASSES, 5, resamples=100)
    for name, one in plain.metrics.items():
        other = found.metrics[name]
        assert other.value == one.value, name
        assert other.low < one.low or one.low == 0, name
        # The value of ece, biased upwards, may be its own upper limit.
        assert other.high > one.high or one.high in (1, one.value), name
    for name, lines in plain.extra["per_class"].items():
        assert found.extra["per_class"][name]["n"] == lines["n"]
        assert found.extra["per_class"][name]["f1"].low <= lines["f1"].low


def test_the_lower_limit_of_the_loss_is_that_of_a_loss_that_falls() -> None:
    """Models of two folds have seen half the rows, of ten nine tenths: L(n) = L(m) (m/n)^s."""
    one = Estimate(0.6, 0.5, 0.7, 0.95)
    for folds in (2, 10):
        found, half = widened(one, "loss", folds), 0.1 * np.sqrt(1 + folds / (folds - 1))
        grown = 0.6 * (1 - 1 / folds) ** scoring.SLOPE
        assert (found.low, found.high) == pytest.approx((grown - half, 0.6 + half))
        # A user's metric of this name may change in either direction.
        of_user = widened(one, "loss", folds, (0.0, np.inf))
        assert (of_user.low, of_user.high) == pytest.approx((0.6 - half, 0.6 + half))


def test_limits_end_where_a_metric_does_and_none_is_made_up() -> None:
    certain = widened(Estimate(0.98, 0.9, 1.0), "f1_macro", 5)
    assert certain.low == pytest.approx(0.98 - np.sqrt(scoring.RATE_EFFECT) * 0.08)
    assert certain.high == 1.0
    # Nadeau and Bengio: (1/K + test ÷ train) in place of 1/K.
    factor = np.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    loss = widened(Estimate(0.1, 0.02, 0.9), "loss", 5)
    assert loss.low == 0.0
    assert loss.high == pytest.approx(0.1 + factor * 0.8)
    own = widened(Estimate(-3.0, -4.0, -2.0), "mine", 5, (-np.inf, np.inf))
    assert own.low == pytest.approx(-3.0 - factor)
    nothing = Estimate(0.5, why="no interval: all rows are of one group")
    assert widened(nothing, "accuracy", 5) is nothing


def test_rows_in_groups_keep_the_doubt_of_their_groups() -> None:
    groups = np.repeat([f"g{i}" for i in range(12)], 10)
    outputs = outputs_of(120, seed=2, groups=groups)
    plain = score(outputs, CLASSES, resamples=50).metrics["accuracy"]
    found = score_out_of_fold(outputs, CLASSES, 5, resamples=50).metrics["accuracy"]
    assert found.low < plain.low
    assert found.high > plain.high
    assert "groups" in str(found.note)
