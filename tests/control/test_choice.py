"""Which state is kept: tables of courses in, the place of the kept state out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from holdfast.control.choice import is_worse, lowest, newest_unless_worse
from holdfast.core.records import Snapshot


def snapshot(step: int, losses: np.ndarray) -> Snapshot:
    empty = np.zeros(0)
    return Snapshot(
        step=step, epoch=float(step), examples_seen=step, phase="finetune", train_losses=empty,
        valid_losses=np.asarray(losses, dtype=float), train_metrics={}, valid_metrics={},
        refined_loss=float(np.mean(losses)) if len(losses) else math.nan, temperature=1.0,
        learning_rate=1e-4, gradient_norm=None, relative_update=None, distance=None, seconds=0.0,
    )  # fmt: skip


def course(*means: float, rows: int = 50, noise: float = 0.0) -> list[Snapshot]:
    rng = np.random.default_rng(0)
    base = rng.exponential(1.0, rows)
    base -= base.mean()
    return [
        snapshot(i, base + mean + noise * rng.standard_normal(rows)) for i, mean in enumerate(means)
    ]


@pytest.mark.parametrize(
    ("means", "kept"),
    [
        ((1.0, 0.8, 0.9), 1),
        ((1.0, 1.0, 1.0), 0),
        ((math.nan, 0.8, math.nan), 1),
        ((math.nan, math.nan), 1),
    ],
)
def test_lowest_keeps_the_smallest_and_the_earlier_on_a_tie(
    means: tuple[float, ...], kept: int
) -> None:
    history = [snapshot(i, np.array([mean])) for i, mean in enumerate(means)]
    assert lowest(lambda s: s.valid_loss)(history) == kept


def test_a_later_state_within_the_noise_stands_in_for_the_lowest() -> None:
    assert newest_unless_worse(course(1.0, 0.50, 0.51, 0.50, 0.52, noise=0.5)) == 4


def test_a_later_state_that_is_clearly_worse_does_not() -> None:
    assert newest_unless_worse(course(1.0, 0.50, 0.51, 0.9, 1.0, noise=0.1)) == 2


def test_small_losses_of_ground_do_not_add_up() -> None:
    """Each state is within the noise of the one before, but the last is far above the lowest."""
    means = [0.5 + 0.02 * i for i in range(20)]
    kept = newest_unless_worse(course(*means, noise=0.1))
    assert 0 < kept < 10


def test_a_loss_that_is_not_a_number_is_never_kept() -> None:
    history = [*course(1.0, 0.5), snapshot(2, np.full(50, math.nan))]
    assert newest_unless_worse(history) == 1


def test_without_validation_rows_the_newest_is_kept() -> None:
    assert newest_unless_worse([snapshot(i, np.zeros(0)) for i in range(3)]) == 2


def test_with_one_row_a_higher_loss_is_worse() -> None:
    assert newest_unless_worse([snapshot(0, np.array([0.5])), snapshot(1, np.array([0.6]))]) == 0
    assert newest_unless_worse([snapshot(0, np.array([0.5])), snapshot(1, np.array([0.4]))]) == 1


def test_the_choice_is_always_the_newest_or_the_one_kept_before() -> None:
    """The loop holds no other state."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        history = course(*rng.uniform(0.4, 0.8, 12), rows=20, noise=0.3)
        kept = [newest_unless_worse(history[: i + 1]) for i in range(len(history))]
        assert all(now == i or now == kept[i - 1] for i, now in enumerate(kept) if i)


def test_a_state_is_called_worse_in_five_per_cent_of_ties() -> None:
    rng = np.random.default_rng(2)
    calls = [is_worse(*rng.standard_normal((2, 30))) for _ in range(2000)]
    assert 0.035 < np.mean(calls) < 0.065


@pytest.mark.parametrize("n", [2, 5, 40])
def test_it_is_the_one_sided_paired_t_test_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(200):
        now, before = rng.gumbel(0.4, size=n), rng.gumbel(size=n)
        expected = stats.ttest_rel(now, before, alternative="greater").pvalue < 0.05
        assert is_worse(now, before) == expected
