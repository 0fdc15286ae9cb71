from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from holdfast.stats.bootstrap import bootstrap, fold_atoms, group_codes, sums


def _mean_of(values: np.ndarray):
    table = np.column_stack([values, np.ones(len(values))])
    return lambda weights: (weights @ table)[:, 0] / (weights @ table)[:, 1]


def _rows(n: int) -> np.ndarray:
    return np.ones(n, dtype=np.int64)


@pytest.mark.parametrize("n", [12, 60])
def test_limits_are_scipys_on_the_same_resamples(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    ours = bootstrap(_mean_of(values), _rows(n), seed=np.random.default_rng(0))
    same_draws = SimpleNamespace(bootstrap_distribution=ours.draws[:, 0])
    oracle = stats.bootstrap(
        (values,), np.mean, n_resamples=0, method="BCa", bootstrap_result=same_draws
    ).confidence_interval
    assert (ours.low[0], ours.high[0]) == pytest.approx((oracle.low, oracle.high), rel=1e-9)


def test_cells_with_counts_and_rows_one_by_one_have_the_same_law() -> None:
    values = np.repeat([0.0, 1.0, 5.0], [50, 30, 20])
    rows = bootstrap(_mean_of(values), _rows(100), seed=np.random.default_rng(0), resamples=20000)
    cells = bootstrap(
        _weighted_mean, np.array([50, 30, 20]), seed=np.random.default_rng(1), resamples=20000
    )
    assert cells.value[0] == pytest.approx(rows.value[0])
    assert cells.low[0] == pytest.approx(rows.low[0], abs=0.03)
    assert cells.high[0] == pytest.approx(rows.high[0], abs=0.03)


def _weighted_mean(weights: np.ndarray) -> np.ndarray:
    return weights @ np.array([0.0, 1.0, 5.0]) / weights.sum(axis=1)


def test_leaving_out_blocks_estimates_the_same_acceleration() -> None:
    values = np.random.default_rng(0).exponential(size=3000)
    single = bootstrap(_mean_of(values), _rows(3000), seed=np.random.default_rng(0), blocks=5000)
    blocks = bootstrap(_mean_of(values), _rows(3000), seed=np.random.default_rng(0), blocks=300)
    assert blocks.low[0] == pytest.approx(single.low[0], abs=0.002)
    assert blocks.high[0] == pytest.approx(single.high[0], abs=0.002)


def test_equal_values_give_an_interval_without_width() -> None:
    result = bootstrap(_mean_of(np.full(40, 0.1)), _rows(40), seed=np.random.default_rng(0))
    assert result.low[0] == pytest.approx(0.1)
    assert result.high[0] == pytest.approx(0.1)


def test_one_row_gives_no_interval() -> None:
    result = bootstrap(_mean_of(np.array([3.0])), _rows(1), seed=np.random.default_rng(0))
    assert result.value[0] == 3.0
    assert np.isnan([result.low[0], result.high[0]]).all()


def test_undefined_resamples_are_left_out_and_counted() -> None:
    def only_with_the_first(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] > 0, weights[:, 1], np.nan)

    result = bootstrap(only_with_the_first, _rows(20), seed=np.random.default_rng(0))
    assert result.defined[0] == pytest.approx(1 - (19 / 20) ** 20, abs=0.04)
    assert np.isfinite(result.low[0])


def test_mostly_undefined_statistics_get_no_interval() -> None:
    def rarely(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] == 1, 1.0, np.nan)

    result = bootstrap(rarely, _rows(20), seed=np.random.default_rng(0))
    assert result.defined[0] < 0.5
    assert np.isnan(result.low[0])


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    statistic = _mean_of(np.random.default_rng(0).normal(size=50))
    a, b, c = (bootstrap(statistic, _rows(50), seed=np.random.default_rng(s)) for s in (1, 1, 2))
    assert a.low[0] == b.low[0]
    assert a.low[0] != c.low[0]


def test_groups_resampled_as_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=30), 10)
    codes = group_codes(np.repeat([f"g{i}" for i in range(30)], 10), 300)
    table = sums(np.column_stack([values, np.ones(300)]), codes, 30)

    def ratio(weights: np.ndarray) -> np.ndarray:
        total = weights @ table
        return total[:, 0] / total[:, 1]

    grouped = bootstrap(ratio, _rows(30), seed=rng)
    rows = bootstrap(_mean_of(values), _rows(300), seed=rng)
    widening = (grouped.high - grouped.low) / (rows.high - rows.low)
    assert widening[0] == pytest.approx(np.sqrt(10), rel=0.15)


def test_bca_covers_the_mean_of_a_skewed_law_better_than_percentiles() -> None:
    rng, runs = np.random.default_rng(0), 400
    missed_above = {"bca": 0, "percentile": 0}
    for _ in range(runs):
        statistic = _mean_of(rng.exponential(size=30))
        result = bootstrap(statistic, _rows(30), seed=rng, resamples=500)
        missed_above["bca"] += result.high[0] < 1.0
        missed_above["percentile"] += np.quantile(result.draws, 0.975) < 1.0
    assert missed_above["bca"] < missed_above["percentile"]


def test_folding_many_rows_keeps_the_width() -> None:
    values = np.random.default_rng(0).exponential(size=20_000)
    pairs = np.column_stack([values, np.ones(20_000)])

    def limits(codes: np.ndarray, atoms: int) -> np.ndarray:
        table = sums(pairs, codes, atoms)
        result = bootstrap(
            lambda weights: (weights @ table)[:, 0] / (weights @ table)[:, 1],
            _rows(atoms),
            seed=np.random.default_rng(0),
            resamples=2000,
            blocks=500,
        )
        return np.array([result.low[0], result.high[0]])

    expected = values.mean() + np.array([-1.96, 1.96]) * values.std() / np.sqrt(20_000)
    assert limits(*fold_atoms(np.arange(20_000), 20_000)) == pytest.approx(expected, abs=0.0015)


def test_few_rows_are_not_folded() -> None:
    codes, atoms = fold_atoms(np.arange(100), 100)
    assert atoms == 100
    assert np.array_equal(codes, np.arange(100))


def test_the_error_of_a_mean_is_its_standard_error_and_the_limits_are_scipys_t() -> None:
    rows = np.random.default_rng(4).gamma(2, size=12)
    found = bootstrap(_mean_of(rows), _rows(12), seed=np.random.default_rng(0), resamples=50)
    assert found.error[0] == pytest.approx(stats.sem(rows))
    expected = stats.t.interval(0.9, 11, rows.mean(), stats.sem(rows))
    assert np.ravel(found.student(11, 0.9)) == pytest.approx(expected)


def test_the_limits_of_a_root_are_those_of_the_root_squared_and_not_below_0() -> None:
    """The error of √x is that of x times its derivative, 1 ÷ (2 √x)."""
    rows = np.random.default_rng(4).gamma(2, size=12)
    found = bootstrap(_mean_of(rows), _rows(12), seed=np.random.default_rng(0), resamples=50)
    low, high = (float(one[0]) for one in found.student(11, 0.9, root=True))
    middle, error = np.sqrt(rows.mean()), stats.sem(rows) / (2 * np.sqrt(rows.mean()))
    expected = np.square(stats.t.interval(0.9, 11, middle, error))
    assert (low, high) == pytest.approx(tuple(expected))
    # With one degree of freedom √x may be 0.
    assert found.student(1, 0.999, root=True)[0][0] == 0


def test_the_error_of_a_ratio_is_scipys_jackknife_and_unknown_where_a_value_is() -> None:
    rng = np.random.default_rng(5)
    pairs = np.column_stack([rng.poisson(3, 9), rng.poisson(5, 9) + 1.0])

    def ratio(weights: np.ndarray) -> np.ndarray:
        total = weights @ pairs
        return total[:, 0] / total[:, 1]

    found = bootstrap(ratio, _rows(9), seed=np.random.default_rng(0), resamples=50)
    left = [pairs[np.arange(9) != i].sum(0) for i in range(9)]
    values = np.array([a / b for a, b in left])
    assert found.error[0] == pytest.approx(8 * stats.sem(values))

    def undefined(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] > 0, weights @ pairs[:, 0], np.nan)

    none = bootstrap(undefined, _rows(9), seed=np.random.default_rng(0), resamples=50)
    assert np.isnan(none.error[0])
