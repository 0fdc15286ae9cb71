"""Folds of losing settings end early, forgivingly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect


def halves(rng: np.random.Generator, rate: float, folds: int, rows: int = 20) -> list[np.ndarray]:
    return [(rng.random(rows) < rate).astype(float) for _ in range(folds)]


def test_the_forecast_is_that_of_the_rows_to_come() -> None:
    """Against draws of the rows to come, with the mean known as well as n rows tell it."""
    from fold_race import folds_may_end

    rng = np.random.default_rng(0)
    best = [np.ones(30), np.ones(30)]
    own = [np.array([0.0] * 4 + [1.0] * 26), np.array([0.0] * 3 + [1.0] * 27)]
    told = folds_may_end(own, best, 5, chance=0.99)
    assert told is not None
    said = float(told.rsplit(" ", 1)[1])
    d = np.concatenate(own) - np.concatenate(best)
    mean = rng.normal(d.mean(), d.std(ddof=1) / np.sqrt(60), 200_000)
    come = rng.normal(mean, d.std(ddof=1) / np.sqrt(90))
    assert said == pytest.approx(((60 * d.mean() + 90 * come) / 150 > 0).mean(), abs=0.01)


def test_a_clear_loser_ends_and_what_is_level_or_better_goes_on() -> None:
    from fold_race import folds_may_end

    rng = np.random.default_rng(1)
    best = halves(rng, 0.9, 10)
    assert folds_may_end(halves(rng, 0.4, 1), best, 10)
    assert folds_may_end([best[0]], best, 10) is None
    assert folds_may_end([np.ones(20)], best, 10) is None
    # Three rows of twenty say nothing yet, however bad they are.
    few = best[0].copy()
    few[np.flatnonzero(few)[:3]] = 0
    assert folds_may_end([few], best, 10) is None
    assert folds_may_end(halves(rng, 0.1, 10), best, 10) is None


def test_of_equals_few_are_ended_that_would_have_won() -> None:
    from fold_race import folds_may_end

    rng, ended, wronged = np.random.default_rng(2), 0, 0
    for _ in range(600):
        own, best = halves(rng, 0.7, 5, 40), halves(rng, 0.7, 5, 40)
        end = any(folds_may_end(own[:f], best, 5, chance=0.1) for f in range(1, 5))
        ended += end
        wronged += end and np.concatenate(own).mean() > np.concatenate(best).mean()
    assert ended / 600 > 0.2
    assert wronged / 600 < 0.08


def test_the_papers_rule_forgives_more_than_the_mean() -> None:
    from fold_race import forgiving

    best = [0.9, 0.6, 0.8]
    assert not forgiving([0.65], best)
    assert forgiving([0.55], best)
    assert stats.ttest_rel([0.55, 0.5, 0.5], best).pvalue < 0.2


@pytest.mark.parametrize(("own", "best", "folds"), [(0, 3, 3), (2, 1, 3), (4, 4, 3)])
def test_what_is_no_race_is_a_defect(own: int, best: int, folds: int) -> None:
    from fold_race import folds_may_end

    rng = np.random.default_rng(0)
    with pytest.raises(Defect):
        folds_may_end(halves(rng, 0.5, own), halves(rng, 0.5, best), folds)
