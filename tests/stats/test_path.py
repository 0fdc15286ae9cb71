from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats.course.path import rise_from_best


def _flat(rng: np.random.Generator, n: int = 100, looks: int = 10) -> np.ndarray:
    return rng.exponential(0.5, size=(n, 1)) + rng.normal(size=(n, looks)) * 0.2


def test_a_clear_rise_is_found_where_it_starts() -> None:
    rng = np.random.default_rng(0)
    losses = _flat(rng, looks=6)
    losses[:, 2] -= 0.2
    losses[:, 5] += 0.2
    rise = rise_from_best(losses, seed=rng)
    assert rise.best == 2
    assert rise.p_value < 0.01
    assert rise.value == pytest.approx(losses[:, 5].mean() - losses[:, 2].mean())


def test_flat_paths_are_rarely_called_rising() -> None:
    rng, runs = np.random.default_rng(0), 200
    alarms = sum(
        rise_from_best(_flat(rng), seed=rng, resamples=200).p_value < 0.05 for _ in range(runs)
    )
    assert alarms / runs <= 0.06


def test_a_plain_test_against_the_best_would_cry_wolf_there() -> None:
    """What the max statistic is for: the naive t test of last against best on the same paths."""
    rng, runs, alarms = np.random.default_rng(0), 200, 0
    for _ in range(runs):
        losses = _flat(rng)
        best = losses.mean(0).argmin()
        gap = losses[:, -1] - losses[:, best]
        error = gap.std() / 10
        alarms += error > 0 and gap.mean() / error > 1.645
    assert alarms / runs > 0.15


def test_the_best_being_last_is_no_rise() -> None:
    losses = _flat(np.random.default_rng(0))
    losses[:, -1] -= 1
    rise = rise_from_best(losses, seed=np.random.default_rng(0))
    assert (rise.t, rise.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (50, 1)])
def test_too_little_gives_no_p_value(shape: tuple[int, int]) -> None:
    assert np.isnan(rise_from_best(np.ones(shape), seed=np.random.default_rng(0)).p_value)


def test_copies_of_rows_are_not_new_evidence_when_grouped() -> None:
    rng = np.random.default_rng(3)
    losses = _flat(rng, n=30, looks=4)
    losses[:, -1] += 0.06
    copies, groups = np.repeat(losses, 20, axis=0), np.repeat(np.arange(30), 20)
    single = rise_from_best(losses, seed=np.random.default_rng(0))
    grouped = rise_from_best(copies, seed=np.random.default_rng(0), groups=groups)
    naive = rise_from_best(copies, seed=np.random.default_rng(0))
    assert grouped.t == pytest.approx(single.t)
    assert naive.p_value < grouped.p_value


def test_many_rows_are_drawn_from_the_normal_law_with_the_same_result() -> None:
    rng = np.random.default_rng(0)
    many = _flat(rng, n=1100, looks=5)
    many[:, -1] += 0.008
    by_law = rise_from_best(many, seed=rng, resamples=4000)
    by_rows = rise_from_best(many, seed=rng, groups=np.arange(1100) % 1000, resamples=4000)
    assert 0.005 < by_law.p_value < 0.5
    assert by_law.p_value == pytest.approx(by_rows.p_value, rel=0.5)
