"""Which of several models comes first, and whether the rows show it: against SciPy and by
simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.prepare.probe_evidence import out_of_fold_scores
from holdfast.search.choice.order import cheapest_as_good, difference, estimate, rank_models


def correct(seed: int, n: int, *chances: float) -> Floats:
    """Models that find the same rows hard."""
    hard = np.random.default_rng(seed).random(n)
    noise = np.random.default_rng(seed + 1000).normal(0, 0.15, (len(chances), n))
    return np.stack([(hard + own < c) for own, c in zip(noise, chances, strict=True)]).astype(float)


def test_a_lead_is_students_of_the_paired_rows() -> None:
    rows = correct(0, 200, 0.7, 0.8)
    found = difference(rows[1], rows[0], np.arange(200))
    t = stats.ttest_rel(rows[1], rows[0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((t.low, t.high), rel=1e-6)
    # Each row three times, as copies, is no more evidence.
    thrice = difference(*(np.repeat(one, 3) for one in rows[::-1]), np.repeat(np.arange(200), 3))
    assert (thrice.low, thrice.high) == pytest.approx((t.low, t.high), rel=1e-6)
    partly = rows.copy()
    partly[0, :50] = np.nan
    t = stats.ttest_rel(rows[1, 50:], rows[0, 50:]).confidence_interval(0.95)
    assert difference(partly[1], partly[0], np.arange(200)).low == pytest.approx(t.low, rel=1e-6)


def test_the_probe_orders_models_and_a_short_fine_tune_that_shows_a_difference_decides() -> None:
    rows, units = correct(1, 200, 0.6, 0.8, 0.7), np.arange(200)
    found = rank_models(rows, units)
    assert (found.order, found.by_short, found.significant) == ((1, 2, 0), False, True)
    valid = np.arange(60)
    worse, better = (correct(2, 60, chance)[0] for chance in (0.5, 0.95))
    turned = rank_models(rows, units, {1: worse, 2: better}, valid)
    assert (turned.order, turned.by_short, turned.significant) == ((2, 1, 0), True, True)
    alike = rank_models(rows, units, {1: better, 2: better}, valid)
    assert (alike.order, alike.by_short) == ((1, 2, 0), False)
    same = rank_models(np.stack([rows[1], rows[1]]), units)
    assert (same.order, same.significant) == ((0, 1), False)
    assert rank_models(rows[:1], units).lead is None
    with pytest.raises(Defect, match="needs a row"):
        rank_models(np.array([[1.0, np.nan], [np.nan, 0.0]]), np.arange(2))


def test_the_interval_of_a_cross_validated_score_holds_that_of_the_probe_from_all_rows() -> None:
    """Ridge on noisy directions, five folds, 120 rows; the truth on 4,000 others."""
    from holdfast.models.probes.transferability import ridge_out_of_fold

    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 4120)
        features = rng.normal(0, 1, (4120, 20)) + 0.35 * np.outer(2 * labels - 1, np.ones(20) / 2)
        targets, known = np.eye(2)[labels], slice(0, 120)
        folds = rng.permutation(120) % 5
        found = ridge_out_of_fold(features[known], targets[known], folds)
        right = (found.predictions.argmax(axis=1) == labels[known]).astype(float)
        x, y = features[known], targets[known]
        centre, level = x.mean(axis=0), y.mean(axis=0)
        penalty = found.share * 120 * float(((x - centre) ** 2).mean())
        square = (x - centre).T @ (x - centre) + penalty * np.eye(20)
        weights = np.linalg.solve(square, (x - centre).T @ (y - level))
        answers = ((features[120:] - centre) @ weights + level).argmax(axis=1)
        truth = float(np.mean(answers == labels[120:]))
        interval = estimate(right, np.arange(120), "accuracy", 5)
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= truth <= interval.high
    assert held >= 54


def test_the_layer_of_a_fold_is_chosen_by_the_other_folds() -> None:
    """Of layers that are all chance the best is above chance by luck, and this mean is not."""
    folds = np.arange(100) % 5
    best, apart = [], []
    for seed in range(300):
        rows = np.random.default_rng(seed).integers(0, 2, (8, 100)).astype(float)
        best.append(rows.mean(axis=1).max())
        apart.append(out_of_fold_scores(rows, folds).mean())
    assert np.mean(best) > 0.55
    assert np.mean(apart) == pytest.approx(0.5, abs=0.02)
    clear = np.stack([np.zeros(10), np.ones(10)])
    assert out_of_fold_scores(clear, np.arange(10) % 2).tolist() == [1.0] * 10
    assert out_of_fold_scores(clear, np.zeros(10, dtype=int)).tolist() == [1.0] * 10


def test_one_group_of_rows_has_a_score_and_no_interval() -> None:
    found = estimate(np.array([1.0, 0.0, 1.0]), np.zeros(3, dtype=int), "accuracy", 5)
    assert (found.value, found.low, found.high) == (pytest.approx(2 / 3), None, None)
    assert "group" in str(found.why)
    # Rows without spread are no proof that others have none.
    alike = estimate(np.ones(40), np.arange(40), "entity_f1", 5)
    assert (alike.low, alike.high) == (None, None)
    assert "spread" in str(alike.why)


def test_a_faster_model_is_taken_only_where_it_is_expected_to_lose_little() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.9, 0.3, 400)

    def taken(loss: float, noise: float, speeds: list[float]) -> int:
        drawn = rng.normal(0, noise, 400)
        second = base - loss + (drawn - drawn.mean())
        return cheapest_as_good(np.stack([base, second, base - 0.4]), np.arange(400), speeds)

    assert taken(0.005, 0.4, [10, 20, 90]) == 1
    assert taken(0.005, 0.4, [10, 14, 90]) == 0
    assert taken(0.005, 0.4, [20, 10, 90]) == 0
    # More than a point is lost, or the difference is shown.
    assert taken(0.02, 0.4, [10, 20, 90]) == 0
    assert taken(0.005, 0.01, [10, 20, 90]) == 0
