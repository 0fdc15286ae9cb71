"""The interval of a mean over episodes that share classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from holdfast.core.errors import Defect
from holdfast.stats.folds import mean_over_units


def incidence(n: int, units: int, each: int, rng: np.random.Generator) -> np.ndarray:
    table = np.zeros((n, units))
    for row in table:
        row[rng.choice(units, each, replace=False)] = 1
    return table


def test_with_one_unit_each_and_equal_counts_it_is_students_interval_of_the_units_means() -> None:
    rng = np.random.default_rng(3)
    effects = rng.normal(0.7, 0.1, 9)
    values = np.repeat(effects, 20) + rng.normal(0, 0.05, 180)
    found = mean_over_units(values, np.repeat(np.eye(9), 20, axis=0))
    means = values.reshape(9, 20).mean(axis=1)
    wanted = ttest_1samp(means, 0.0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    above = 1 - ttest_1samp(means, 0.0, alternative="greater").pvalue
    assert found.above == pytest.approx(above)


@pytest.mark.parametrize(("units", "each"), [(12, 5), (30, 5), (8, 2)])
def test_it_holds_the_mean_over_other_units_as_often_as_it_says(units: int, each: int) -> None:
    rng = np.random.default_rng(units)
    held = plain = 0
    for _ in range(200):
        members = incidence(200, units, each, rng)
        effects = rng.normal(0, 0.05, units)
        values = 0.6 + members @ effects + rng.normal(0, 0.08, 200)
        found = mean_over_units(values, members)
        held += found.low <= 0.6 <= found.high
        plain += abs(values.mean() - 0.6) <= 1.96 * values.std(ddof=1) / math.sqrt(200)
    # Binomial(200, 0.95) is below 181 once in 500; what papers print covers a third of the time.
    assert held >= 181
    assert plain < 130


def test_without_effects_of_units_it_is_about_as_wide_as_rows_by_themselves_make_it() -> None:
    rng = np.random.default_rng(0)
    members = incidence(2000, 40, 5, rng)
    values = rng.normal(0.5, 0.1, 2000)
    found = mean_over_units(values, members)
    plain = 1.96 * values.std(ddof=1) / math.sqrt(2000)
    assert 0.95 * plain < (found.high - found.low) / 2 < 2.2 * plain


def test_units_that_cannot_be_told_apart_give_no_interval() -> None:
    values = np.array([0.2, 0.4, 0.9])
    everywhere = mean_over_units(values, np.ones((3, 5)))
    alone = mean_over_units(values, np.ones((3, 1)))
    unused = mean_over_units(values, np.c_[np.ones(3), np.zeros(3)])
    for found in (everywhere, alone, unused):
        assert found.value == pytest.approx(0.5)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert math.isnan(mean_over_units(np.zeros(0), np.zeros((0, 4))).value)


def test_equal_values_are_an_interval_without_width() -> None:
    found = mean_over_units(np.zeros(6), np.repeat(np.eye(3), 2, axis=0))
    assert (found.value, found.low, found.high, found.above) == (0.0, 0.0, 0.0, 0.5)


def test_observations_of_unlike_many_units_are_a_defect() -> None:
    with pytest.raises(Defect, match="equally many units"):
        mean_over_units(np.zeros(2), np.array([[1.0, 1.0], [1.0, 0.0]]))
