from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from holdfast.stats.paired_tests import mcnemar, newcombe, paired_bootstrap, sign_flip_p_value


def _table(both: int, only_1: int, only_2: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, True, False, False], [both, only_1, only_2, neither])
    second = np.repeat([True, False, True, False], [both, only_1, only_2, neither])
    return first, second


COUNTS = st.integers(0, 40)


@given(COUNTS, COUNTS)
@settings(max_examples=60)
def test_mcnemar_is_the_binomial_test_of_discordant_rows(only_1: int, only_2: int) -> None:
    first, second = _table(5, only_1, only_2, 3)
    if only_1 + only_2 == 0:
        assert mcnemar(first, second) == mcnemar(first, second, mid=False) == 1.0
        return
    oracle = stats.binomtest(only_1, only_1 + only_2).pvalue
    assert mcnemar(first, second, mid=False) == pytest.approx(oracle)
    # Of all tables with as many discordant rows: those further from the middle, and half of those
    # as far.
    outcomes = np.arange(only_1 + only_2 + 1)
    chances = stats.binom.pmf(outcomes, only_1 + only_2, 0.5)
    far, own = np.abs(2 * outcomes - only_1 - only_2), abs(only_1 - only_2)
    mid = chances[far > own].sum() + chances[far == own].sum() / 2
    assert mcnemar(first, second) == pytest.approx(mid)


def test_sign_flips_are_all_counted_and_for_rows_are_mcnemars_test() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sums = rng.integers(-4, 5, 8)
        every = np.array(list(itertools.product([-1, 1], repeat=8))) @ np.abs(sums)
        oracle = np.mean(np.abs(every) >= abs(sums.sum()))
        assert sign_flip_p_value(sums) == pytest.approx(oracle)
        first, second = rng.random((2, 50)) < 0.5
        rows = first.astype(np.int64) - second
        assert sign_flip_p_value(rows) == pytest.approx(mcnemar(first, second, mid=False))
    assert sign_flip_p_value(np.zeros(3, dtype=np.int64)) == 1.0


def test_mid_p_of_many_discordant_rows_is_finite() -> None:
    first, second = _table(0, 1500, 1400, 0)
    assert mcnemar(first, second) == pytest.approx(
        stats.binomtest(1400, 2900).pvalue - stats.binom.pmf(1400, 2900, 0.5)
    )


def test_newcombe_gives_the_published_interval() -> None:
    """Newcombe 1998, table II: 36, 12, 2, 0 has 0.0569 to 0.3404 by method 10."""
    low, high = newcombe(*_table(36, 12, 2, 0))
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


@pytest.mark.parametrize("table", [(36, 12, 3, 0), (9, 1, 1, 4), (5, 2, 1, 3), (3, 3, 2, 3)])
def test_newcombe_takes_half_a_row_count_off_the_correlation_of_odd_rows_too(table) -> None:
    """Method 10 in decimals of 30 digits: Wilson's limits as roots of their quadratic."""
    from decimal import Decimal, localcontext

    a, b, c, d = map(Decimal, table)
    with localcontext() as context:
        context.prec = 30
        n, z = a + b + c + d, Decimal("1.959963984540054235524594430520")

        def wilson(hits: Decimal) -> tuple[Decimal, Decimal]:
            # (1 + z²/n) p² − (2 p̂ + z²/n) p + p̂² = 0
            square, middle, rate = 1 + z * z / n, 2 * hits / n + z * z / n, hits / n
            root = (middle * middle - 4 * square * rate * rate).sqrt()
            return (middle - root) / (2 * square), (middle + root) / (2 * square)

        one, two = (a + b) / n, (a + c) / n
        (low_1, high_1), (low_2, high_2) = wilson(a + b), wilson(a + c)
        cross = a * d - b * c
        corrected = cross if cross < 0 else max(cross - n / 2, Decimal(0))
        phi = corrected / ((a + b) * (c + d) * (a + c) * (b + d)).sqrt()

        def root_of(x: Decimal, y: Decimal) -> Decimal:
            return (x * x - 2 * phi * x * y + y * y).sqrt()

        low = one - two - root_of(one - low_1, high_2 - two)
        high = one - two + root_of(high_1 - one, two - low_2)
    assert newcombe(*_table(*table)) == pytest.approx((float(low), float(high)), abs=1e-12)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
@settings(max_examples=60)
def test_newcombe_holds_the_difference_and_turns_with_the_models(a, b, c, d) -> None:
    first, second = _table(a, b, c, d)
    low, high = newcombe(first, second)
    assert -1 <= low <= high <= 1
    if len(first):
        assert low - 1e-12 <= first.mean() - second.mean() <= high + 1e-12
    turned = newcombe(second, first)
    assert turned == pytest.approx((-high, -low), abs=1e-12)


def test_newcombe_covers_by_simulation() -> None:
    rng, runs, covered = np.random.default_rng(0), 2000, 0
    for _ in range(runs):
        counts = rng.multinomial(60, [0.7, 0.12, 0.05, 0.13])
        low, high = newcombe(*_table(*counts))
        covered += low <= 0.07 <= high
    assert 0.935 < covered / runs < 0.98


def test_a_shift_of_every_row_is_found_exactly() -> None:
    losses = np.random.default_rng(0).random(50)
    result = paired_bootstrap(losses + 0.3, losses, seed=np.random.default_rng(0))
    assert (result.value, result.low, result.high) == pytest.approx((0.3, 0.3, 0.3))
    assert result.above == 1.0


def test_pairing_is_narrower_than_two_means() -> None:
    rng = np.random.default_rng(0)
    hard = rng.exponential(size=300)
    first, second = hard + 0.05 + rng.normal(size=300) * 0.05, hard
    result = paired_bootstrap(first, second, seed=rng)
    unpaired = 2 * 1.96 * np.sqrt(first.var() / 300 + second.var() / 300)
    assert result.low > 0
    assert result.high - result.low < unpaired / 5


def test_exchanging_the_models_turns_the_difference() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(80), rng.random(80)
    one = paired_bootstrap(first, second, seed=np.random.default_rng(1))
    other = paired_bootstrap(second, first, seed=np.random.default_rng(1))
    assert other.value == pytest.approx(-one.value)
    assert other.low == pytest.approx(-one.high, abs=1e-3)
    assert other.above == pytest.approx(1 - one.above)


def test_groups_are_resampled_whole() -> None:
    rng = np.random.default_rng(0)
    gap = np.repeat(rng.normal(size=25), 8)
    codes = np.repeat(np.arange(25), 8)
    rows = paired_bootstrap(gap, np.zeros(200), seed=rng)
    groups = paired_bootstrap(gap, np.zeros(200), groups=codes, seed=rng)
    ratio = (groups.high - groups.low) / (rows.high - rows.low)
    assert ratio == pytest.approx(np.sqrt(8), rel=0.2)


def test_groups_are_the_t_test_of_their_means() -> None:
    rng = np.random.default_rng(1)
    gap = np.repeat(rng.normal(0.3, 1, size=7), 8)
    found = paired_bootstrap(gap, np.zeros(56), groups=np.repeat(np.arange(7), 8), seed=rng)
    test = stats.ttest_1samp(gap[::8], 0)
    assert 2 * min(found.above, 1 - found.above) == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))


@pytest.mark.parametrize("n", [2, 3, 10, 29])
def test_few_rows_have_the_p_value_of_the_t_test_and_no_narrower_interval(n: int) -> None:
    gap = np.random.default_rng(n).exponential(size=n)
    found = paired_bootstrap(gap, np.zeros(n), seed=np.random.default_rng(0))
    theirs = stats.ttest_1samp(gap, 0)
    assert found.p_value == pytest.approx(theirs.pvalue)
    limits = theirs.confidence_interval(0.95)
    assert found.low <= limits.low + 1e-9
    assert found.high >= limits.high - 1e-9


def test_equal_differences_have_no_spread_though_they_differ_by_rounding() -> None:
    seed, rows = np.random.default_rng(0), np.arange(6.0)
    assert not paired_bootstrap(rows + 0.1, rows, seed=seed).has_spread
    assert not paired_bootstrap(rows + 0.1, rows, seed=seed, groups=np.arange(6) // 2).has_spread
    assert paired_bootstrap(rows, np.zeros(6), seed=seed).has_spread


def test_no_rows_give_nan_and_one_row_no_interval() -> None:
    empty = paired_bootstrap(np.array([]), np.array([]), seed=np.random.default_rng(0))
    assert np.isnan(empty.value)
    one = paired_bootstrap(np.array([1.0]), np.array([0.5]), seed=np.random.default_rng(0))
    assert one.value == 0.5
    assert np.isnan(one.low)


@pytest.mark.parametrize("n", [5, 60])
def test_a_loss_that_is_not_finite_shows_nothing(n: int) -> None:
    first = np.linspace(1, 2, n)
    first[2] = np.nan
    unknown = paired_bootstrap(first, np.zeros(n), seed=np.random.default_rng(0))
    assert (unknown.p_value, unknown.has_spread) == (1.0, False)


def test_newcombes_interval_and_mcnemars_p_value_nearly_always_agree() -> None:
    rng, agree = np.random.default_rng(0), 0
    for _ in range(500):
        first, second = _table(*rng.multinomial(150, [0.6, 0.16, 0.08, 0.16]))
        low, high = newcombe(first, second)
        agree += (low > 0 or high < 0) == (mcnemar(first, second) < 0.05)
    assert agree / 500 > 0.95


def test_of_no_rows_nothing_is_known_of_who_is_right_more_often() -> None:
    none = np.zeros(0, dtype=bool)
    assert newcombe(none, none) == (-1.0, 1.0)
    assert mcnemar(none, none) == 1.0


def test_one_group_shows_nothing() -> None:
    rows = np.arange(10.0) + 1
    seed = np.random.default_rng(0)
    found = paired_bootstrap(rows, np.zeros(10), seed=seed, groups=np.zeros(10, np.int64))
    assert (found.value, found.n, found.p_value) == (5.5, 10, 1.0)
    assert np.isnan([found.low, found.high, found.above]).all()
