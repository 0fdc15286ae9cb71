"""Accuracy without labels and with few, and harm."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from holdfast.plugins.drift import accuracy as made
from holdfast.plugins.drift.accuracy import (
    HarmWatch,
    estimate_accuracy,
    fit_logistic,
    powered_accuracy,
    support_problem,
)
from holdfast.plugins.drift.report import compare_vectors, rows_outside
from holdfast.stats.intervals import wilson


def _world(n: int, seed: int, a: float = 6, honest: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    sure = np.clip(random.beta(a, 2, n), 0.3, 0.999)
    return sure, (random.uniform(size=n) < sure * honest).astype(float)


def test_the_curve_is_the_one_of_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "PENALTY_ROWS", 1e-9)
    sure, right = _world(400, 0)
    weights = np.random.default_rng(1).uniform(0.5, 2, 400)
    x = made.logit(sure)
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(x[:, None], right, sample_weight=weights)
    table = fit_logistic(x, right, np.stack([weights, np.ones(400)]))
    assert table[0] == pytest.approx([model.intercept_[0], model.coef_[0, 0]], rel=1e-3)


@pytest.mark.slow
def test_it_follows_confidence_and_its_interval_holds() -> None:
    errors, held = [], []
    for seed in range(40):
        sure, right = _world(400, seed)
        # New rows that are harder, and a model that says so.
        new, truth = _world(600, 1000 + seed, a=3)
        found = estimate_accuracy(sure, right, new, seed=seed)
        errors.append(found.value - truth.mean())
        held.append(found.low <= truth.mean() <= found.high)
        assert abs(right.mean() - truth.mean()) > 0.05
    assert np.mean(np.abs(errors)) < 0.03
    assert np.mean(held) >= 0.88


def test_overconfidence_is_corrected_by_the_reference() -> None:
    sure, right = _world(2000, 0, honest=0.8)
    new, truth = _world(2000, 1, honest=0.8)
    found = estimate_accuracy(sure, right, new)
    assert found.value == pytest.approx(truth.mean(), abs=0.03)
    assert new.mean() - truth.mean() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "level"), [(2.5, 1.0), (0.4, -1.5), (1.0, 0.0)])
def test_a_model_that_is_far_too_sure_or_unsure_is_read_rightly(slope: float, level: float) -> None:
    """Of confidences of 95 % where 80 % are right, and of a third where 83 % are."""
    errors, held = [], []
    for seed in range(30):
        random = np.random.default_rng(seed)
        chance = random.beta(4, 1, 800)
        right = (random.uniform(size=800) < chance).astype(float)
        sure = 1 / (1 + np.exp(-(slope * made.logit(chance) + level)))
        found = estimate_accuracy(sure[:200], right[:200], sure[200:], seed=seed)
        errors.append(found.value - right[200:].mean())
        held.append(found.low <= right[200:].mean() <= found.high)
    assert abs(np.mean(errors)) < 0.02
    assert np.mean(held) >= 0.88


def test_the_fit_is_at_its_top_wherever_the_rows_lie() -> None:
    from scipy.optimize import minimize

    for seed in range(5):
        random = np.random.default_rng(seed)
        x = random.normal(6, 5, 120)
        y = (random.uniform(size=120) < 1 / (1 + np.exp(-(0.3 * x - 1)))).astype(float)

        def loss(line: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> float:
            at = line[0] + line[1] * x
            own = (
                made.PENALTY_ROWS * (made.INTERCEPT_PENALTY * line[0] ** 2 + (line[1] - 1) ** 2) / 2
            )
            return float((np.logaddexp(0, at) - y * at).sum() + own)

        best = minimize(loss, [0.0, 1.0], method="BFGS").fun
        assert loss(fit_logistic(x, y, np.ones((1, 120)))[0]) == pytest.approx(best, abs=1e-4)


def test_weights_speak_of_the_rows_that_are_like_the_new() -> None:
    # Half of the reference is a kind of row on which confidence lies; new rows are of that kind.
    random = np.random.default_rng(0)
    sure, kind = random.uniform(0.6, 0.95, 1000), np.repeat([0, 1], 500)
    right = (random.uniform(size=1000) < np.where(kind == 1, sure - 0.3, sure)).astype(float)
    new = random.uniform(0.6, 0.95, 500)
    plain = estimate_accuracy(sure, right, new)
    weighed = estimate_accuracy(sure, right, new, weights=np.where(kind == 1, 1.9, 0.1))
    truth = float((new - 0.3).mean())
    assert abs(weighed.value - truth) < 0.5 * abs(plain.value - truth)


def test_without_support_or_rows_there_is_no_number() -> None:
    sure, right = _world(200, 0)
    lost = support_problem(np.ones(200), 0.4, 100)
    assert "unlike any reference row" in lost
    assert estimate_accuracy(sure, right, sure, support=lost).value is None
    few = support_problem(np.array([20.0] + [0.01] * 199), 0.0, 100)
    assert "only" in few
    assert support_problem(np.ones(200), 0.02, 100) is None
    # Thirty rows that all count are not fewer than thirty by a hair's breadth.
    assert support_problem(np.linspace(0.9, 1.1, 30), 0.0, 100) is None
    assert support_problem(np.array([10.0] * 10 + [0.01] * 20), 0.0, 100) is not None
    assert "at least 30" in estimate_accuracy(sure[:9], right[:9], sure).why
    assert "at least 30" in estimate_accuracy(sure, right, sure[:9]).why


@pytest.mark.parametrize("reference", [30, 60, 150])
def test_a_small_reference_is_not_said_to_be_left_by_rows_of_its_own_law(reference: int) -> None:
    lost, far = 0, 0
    for seed in range(60):
        random = np.random.default_rng([seed, reference])
        held, new = random.normal(size=(reference, 6)), random.normal(size=(500, 6))
        even = np.ones(reference)
        lost += support_problem(even, float(rows_outside(held, new, seed).mean()), 500) is not None
        new[::2, 0] += 12
        far += support_problem(even, float(rows_outside(held, new, seed).mean()), 500) is not None
    # Each of 160 references is that unlike its own source.
    assert lost <= 3
    assert far == 60


def test_like_and_unlike_vectors_are_told_apart_as_far_as_they_are() -> None:
    random = np.random.default_rng(0)
    held = random.normal(size=(300, 10))
    same = compare_vectors(held, random.normal(size=(200, 10)))
    assert same.area.low < 0.5 < same.area.high
    assert same.outside.mean() < 0.06
    near = random.normal(size=(200, 10))
    near[:, 0] += 1.0
    moved = compare_vectors(held, near)
    # Two normal laws one deviation apart: Φ(1 ÷ √2) = 0.76.
    assert moved.area.value == pytest.approx(0.76, abs=0.05)
    assert np.corrcoef(moved.weights, held[:, 0])[0, 1] > 0.7
    far = compare_vectors(held, random.normal(size=(200, 10)) + 8)
    assert far.outside.mean() > 0.9
    assert far.share.value > 0.9
    assert compare_vectors(held[:10], near) is None
    # Rows that are in both sets are not told the wrong way round.
    shared = compare_vectors(held, held[:150])
    assert shared.area.value == pytest.approx(0.5, abs=0.06)
    # One row of the reference, sent again and again; and vectors that say nothing.
    assert compare_vectors(held, np.repeat(held[:1], 100, axis=0)).area.low > 0.9
    equal = np.ones((100, 10))
    assert compare_vectors(equal, equal[:50]).area.value == pytest.approx(0.5)


def test_few_labels_and_many_answers_hold_the_truth_and_are_narrower() -> None:
    held, narrower = [], []
    for seed in range(60):
        # Chances that are wrong by a tenth throughout: only the labels tell.
        sure, right = _world(1500, seed, a=2)
        labelled, rest = slice(0, 150), slice(150, None)
        found = powered_accuracy(right[labelled], np.minimum(sure[labelled] + 0.1, 1), sure[rest])
        alone = powered_accuracy(right[labelled], np.full(150, np.nan), sure[rest])
        both = powered_accuracy(right[labelled], sure[labelled], sure[rest])
        truth = right.mean()
        held.append(both.low <= truth <= both.high)
        narrower.append((both.high - both.low) / (alone.high - alone.low))
        assert found.value is not None
    assert np.mean(held) >= 0.9
    assert np.mean(narrower) < 0.95


def test_the_interval_counts_the_chance_in_the_rows_without_labels_too() -> None:
    random = np.random.default_rng(4)
    chance = random.uniform(0.3, 1, 240)
    right = (random.uniform(size=240) < chance).astype(float)
    known, others = slice(0, 200), chance[200:]
    found = powered_accuracy(right[known], chance[known], others)
    weight = np.cov(right[known], chance[known])[0, 1] / ((1 + 200 / 40) * chance.var(ddof=1))
    rest = right[known] - weight * chance[known]
    error = np.sqrt(weight**2 * others.var(ddof=1) / 40 + rest.var(ddof=1) / 200)
    assert found.value == pytest.approx(weight * others.mean() + rest.mean())
    rows = right[known].var(ddof=1) / error**2
    assert rows > 200
    limits = wilson(found.value * rows, rows)
    assert (found.low, found.high) == pytest.approx(limits)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error, rel=0.03)


@pytest.mark.parametrize("accuracy", [0.85, 0.9, 0.97])
def test_from_thirty_labels_the_interval_covers_a_high_accuracy(accuracy: float) -> None:
    random, covered = np.random.default_rng(0), 0

    def chance(z: np.ndarray, mean: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + 0.5 * z)))

    truth = chance(random.normal(size=100_000), accuracy).mean()
    for _ in range(1000):
        z = random.normal(size=530)
        right = (random.uniform(size=30) < chance(z[:30], accuracy)).astype(float)
        confidence = chance(z, 0.93)
        found = powered_accuracy(right, confidence[:30], confidence[30:])
        covered += found.low <= truth <= found.high
    assert covered > 930


def test_few_labels_fall_back_to_what_they_say_alone() -> None:
    found = powered_accuracy(np.array([1.0] * 9 + [0.0]), np.full(10, 0.8), np.full(500, 0.8))
    assert found.value == 0.9
    assert "labels only" in found.note
    assert powered_accuracy(np.zeros(0), np.zeros(0), np.zeros(3)).value is None


def test_harm_begins_two_points_beyond_what_the_reference_leaves_plausible() -> None:
    watch = HarmWatch.of_reference(np.repeat([1.0, 0.0, np.nan], [180, 20, 5]))
    assert watch is not None
    assert watch.allowed == pytest.approx(stats.beta.ppf(0.99379, 21, 180) + 0.02)


def test_harm_is_noticed_and_change_without_harm_is_not() -> None:
    random = np.random.default_rng(0)
    watch = HarmWatch.of_reference((random.uniform(size=300) < 0.9).astype(float))
    assert watch is not None
    quiet, at = watch.add((random.uniform(size=3000) < 0.1).astype(float), 100_000)
    assert at is None
    found, at = quiet.add((random.uniform(size=300) < 0.35).astype(float), 100_000)
    assert at is not None
    assert 2980 <= found.detector.since <= 3030
    again = watch.with_saved_state(found.to_json())
    assert again.detector.level == found.detector.level
    assert (again.rows, again.wrong) == (found.rows, found.wrong)
    assert HarmWatch.of_reference(np.full(200, np.nan)) is None


def test_rows_that_are_all_told_apart_do_not_make_the_share_certain() -> None:
    from holdfast.plugins.drift.report import _differing_share

    share = _differing_share(-np.ones(20), np.ones(20))
    # Ten of ten against none of ten, since scores of different folds are correlated.
    reach = wilson(0, 10)[1]
    assert share.value == 1
    assert share.low == pytest.approx(1 - np.hypot(reach, reach))
    assert share.high == 1
    none = _differing_share(-np.ones(20), -np.ones(20))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(reach)
