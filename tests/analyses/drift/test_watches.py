"""Watches of vectors, classes and facts: silent where nothing changes, and what they say."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from holdfast.plugins.drift.rows import DriftRows
from holdfast.plugins.drift.vectors import (
    FIT_EVERY,
    MAX_WIDTH,
    MEMORIES,
    RIDGE,
    VectorWatch,
    row_marks,
    shrunken_precision,
)
from holdfast.plugins.drift.watches import (
    ClassWatch,
    NumberWatch,
    in_tail,
    rank_bound,
    ranks,
    tail_bound,
)
from holdfast.stats.streams.means import Detector

LIMIT = 100_000.0


def _read(vectors: np.ndarray) -> DriftRows:
    return DriftRows(len(vectors), vectors)


def _answered(classes: np.ndarray) -> DriftRows:
    return DriftRows(len(classes), answers=classes)


def test_the_mean_rank_is_the_area_under_the_curve() -> None:
    random = np.random.default_rng(0)
    old, new = random.normal(0, 1, 80).round(1), random.normal(0.5, 1, 60).round(1)
    truth = roc_auc_score([0] * 80 + [1] * 60, [*old, *new])
    assert ranks(new, np.sort(old)).mean() == pytest.approx(truth)


def test_bounds_hold_what_a_finite_reference_leaves_plausible() -> None:
    random, m = np.random.default_rng(1), 40
    over = []
    for _ in range(4000):
        held = np.sort(random.uniform(size=m))
        # Of a uniform law the true mean rank among these rows, and the true share beyond.
        over.append((1 - held.mean() > rank_bound(m), 1 - held[m - 4] > tail_bound(m)))
    assert 0.002 < np.mean([one for one, _ in over]) < 0.012
    assert 0.002 < np.mean([one for _, one in over]) < 0.012
    assert in_tail(np.array([0.99, 0.5]), np.linspace(0, 1, 40)).tolist() == [1.0, 0.0]


def test_the_covariance_is_shrunk_as_ledoit_and_wolf_do() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 6)) * [1, 2, 3, 1, 1, 1]
    cov, _ = ledoit_wolf(rows)
    added = RIDGE * np.trace(np.cov(rows.T, bias=True)) / 6 * np.eye(6)
    assert np.allclose(np.linalg.inv(shrunken_precision(rows)), cov + added)
    assert np.allclose(shrunken_precision(np.ones((5, 3))), np.eye(3))


def _moved(at: int, by: float, n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, 20))
    rows[at:, 3] += by
    return rows


def test_a_shift_of_vectors_is_noticed_and_dated() -> None:
    watch = VectorWatch.of_reference(np.random.default_rng(9).normal(size=(200, 20)))
    found, at = watch.add(_read(_moved(300, 1.5, 600)), LIMIT)
    assert at is not None
    assert 300 < at < 420
    assert 290 <= found.detector.since <= 330


def test_parts_and_a_restart_do_not_matter() -> None:
    reference = np.random.default_rng(9).normal(size=(60, 20))
    rows = _moved(50, 1.0, 150)
    rows[7] = np.nan
    whole, _ = VectorWatch.of_reference(reference).add(_read(rows), math.inf)
    watch = VectorWatch.of_reference(reference)
    for start in range(0, 150, 11):
        watch, _ = watch.add(_read(rows[start : start + 11]), math.inf)
        said = json.loads(json.dumps(watch.to_json()))
        watch = VectorWatch.of_reference(reference).with_saved_state(said)
    assert np.allclose(watch.detector.evidence, whole.detector.evidence)
    assert np.allclose(watch.sums, whole.sums)


@pytest.mark.slow
def test_a_small_reference_raises_no_alarm_however_long_one_waits() -> None:
    alarms, naive = 0, 0
    for seed in range(6):
        random = np.random.default_rng(seed)
        reference, rows = random.normal(size=(60, 5)), random.normal(size=(8000, 5))
        watch, at = VectorWatch.of_reference(reference, seed).add(_read(rows), LIMIT)
        alarms += at is not None
        # The same bets against an area of one half, as if the reference were the law itself.
        watch = VectorWatch.of_reference(reference, seed)
        bounds = np.where(watch.detector.bounds > 0.4, 0.5, 0.1)
        blind = replace(watch, detector=Detector.of_bounds(bounds))
        naive += blind.add(_read(rows), LIMIT)[1] is not None
    assert alarms == 0
    assert naive >= 4


def test_a_replay_of_few_rows_raises_no_alarm_and_a_change_after_it_does() -> None:
    random = np.random.default_rng(4)
    reference, pool = random.normal(size=(300, 60)), random.normal(size=(300, 60))
    replay = pool[random.integers(0, 300, 6000)]
    watch, at = VectorWatch.of_reference(reference).add(_read(replay), LIMIT)
    assert at is None
    # As may the reference itself be.
    again = _read(reference[random.integers(0, 300, 3000)])
    _, at = VectorWatch.of_reference(reference).add(again, LIMIT)
    assert at is None
    later = random.normal(size=(400, 60)) + 0.4
    found, at = watch.add(_read(later), LIMIT)
    assert at is not None
    assert at < 150
    assert abs(found.detector.since - 6000) < 40


def test_a_row_that_came_is_judged_as_if_it_had_not() -> None:
    random = np.random.default_rng(0)
    reference, rows = random.normal(size=(80, 12)), random.normal(size=(FIT_EVERY * 3, 12))
    watch = VectorWatch.of_reference(reference)
    found, _ = watch.add(_read(rows), math.inf)
    marks = row_marks(rows - watch.halves.mean, watch.halves.signs)
    # Noise of another batch makes no other row of it.
    noisy = rows[5] + random.normal(size=12) * 1e-7
    assert row_marks(noisy[None] - watch.halves.mean, watch.halves.signs)[0] == marks[5]
    payoffs = found.payoffs(noisy[None], marks[5:6])[0]
    # A plain loop: the weighed mean of the others, and the discriminant made of that.
    for k, memory in enumerate(MEMORIES):
        weights = (1 - 1 / memory) ** np.arange(len(rows) - 1, -1, -1)
        weights[5] = 0
        centre = weights @ rows / weights.sum()
        way = watch.halves.precision @ (centre - watch.halves.mean)
        score, among = np.array([noisy @ way]), np.sort(watch.halves.rank_half @ way)
        assert payoffs[2 * k] == pytest.approx(ranks(score, among)[0])
        assert payoffs[2 * k + 1] == in_tail(score, among)[0]


def test_wide_vectors_are_projected_and_still_tell() -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(80, MAX_WIDTH + 100))
    rows = random.normal(size=(200, MAX_WIDTH + 100)) + 0.5
    found, at = VectorWatch.of_reference(reference).add(_read(rows), LIMIT)
    assert at is not None
    assert found.halves.width == MAX_WIDTH + 100


def test_a_class_that_is_answered_more_often_is_named() -> None:
    random = np.random.default_rng(2)
    then = random.choice(3, 300, p=[0.6, 0.3, 0.1])
    same, late = random.choice(3, 5000, p=[0.6, 0.3, 0.1]), random.choice(3, 500, p=[0.3, 0.3, 0.4])
    watch = ClassWatch.of_reference(then, ("a", "b", "c"))
    assert watch is not None
    quiet, at = watch.add(_answered(same), LIMIT)
    assert at is None
    found, at = quiet.add(_answered(late), LIMIT)
    assert at is not None
    assert at < 150
    assert found.strongest_test in ("c more often", "a less often")
    assert 4950 <= found.detector.since <= 5040
    assert ClassWatch.of_reference(then[:5], ("a", "b", "c")) is None


def test_a_fact_that_moves_is_named_with_its_direction() -> None:
    random = np.random.default_rng(2)
    then = {"confidence": random.beta(8, 2, 200), "words": random.poisson(20, 200).astype(float)}
    watch = NumberWatch.of_reference(then)
    assert watch is not None
    same = {"confidence": random.beta(8, 2, 4000), "words": random.poisson(20, 4000).astype(float)}
    quiet, at = watch.add(DriftRows(4000, numbers=same), LIMIT)
    assert at is None
    late = {"confidence": random.beta(4, 3, 400), "words": random.poisson(20, 400).astype(float)}
    found, at = quiet.add(DriftRows(400, numbers=late), LIMIT)
    assert at is not None
    assert found.strongest_test.startswith("confidence")
    assert found.strongest_test.endswith("lower")
    # A fact that rows do not bring is not bet on, but the rows count.
    unknown, _ = watch.add(DriftRows(10), LIMIT)
    assert unknown.detector.rows == 10
    assert unknown.detector.level == 0
    assert NumberWatch.of_reference({"words": np.full(50, 3.0)}) is None
