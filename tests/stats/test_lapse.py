"""The lapse rate against SciPy's optimiser, and what its interval holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from holdfast.core.errors import Defect
from holdfast.stats.lapse import Lapse, lapse_rate, true_class_probabilities


def drawn(
    n: int, classes: int, rate: float, *, skill: float = 2.5, heat: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are honest at temperature ``heat``, and labels of which ``rate`` lapsed."""
    return drawn_with_truth(n, classes, rate, skill=skill, heat=heat, seed=seed)[:2]


def drawn_with_truth(
    n: int, classes: int, rate: float, *, skill: float = 2.5, heat: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = skill * rng.normal(size=(n, classes))
    chances = special.softmax(scores, axis=1)
    truth = (rng.random(n)[:, None] > chances.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    other = (truth + rng.integers(1, classes, n)) % classes
    return heat * scores, np.where(rng.random(n) < rate, other, truth), truth


def loss(logits: np.ndarray, labels: np.ndarray, rate: float, log_t: float) -> float:
    p = special.softmax(logits / math.exp(log_t), axis=1)[np.arange(len(labels)), labels]
    return float(-np.log((1 - rate) * p + rate * (1 - p) / (logits.shape[1] - 1)).sum())


def oracle(logits: np.ndarray, labels: np.ndarray, level: float = 0.95) -> tuple[float, ...]:
    """SciPy's minimum in both, and its bounded minimum in T at every rate of a fine grid."""
    top = (logits.shape[1] - 1) / logits.shape[1]
    best = min(
        (
            optimize.minimize(
                lambda at: loss(logits, labels, *at),
                start,
                method="L-BFGS-B",
                bounds=[(0, top), (-3, 3)],
            )
            for start in [(0.01, 0.0), (0.1, 0.5), (0.3, -0.5)]
        ),
        key=lambda found: found.fun,
    )
    line = best.fun + stats.chi2.ppf(level, 1) / 2
    rates = np.linspace(0, top, 301)
    inside = [
        rate
        for rate in rates
        if optimize.minimize_scalar(
            lambda log_t, rate=rate: loss(logits, labels, rate, log_t),
            bounds=(-3, 3),
            method="bounded",
        ).fun
        <= line
    ]
    return best.x[0], min(inside), max(inside), math.exp(best.x[1])


@pytest.mark.parametrize(("classes", "rate", "heat"), [(2, 0.1, 2.0), (6, 0.15, 0.6), (3, 0.0, 1)])
def test_rate_interval_and_temperature_are_those_of_scipys_optimiser(
    classes: int, rate: float, heat: float
) -> None:
    logits, labels = drawn(500, classes, rate, heat=heat, seed=classes)
    found = lapse_rate(logits, labels)
    wanted = oracle(logits, labels)
    step = (classes - 1) / classes / 300
    assert found.rate == pytest.approx(wanted[0], abs=2e-3)
    assert found.low == pytest.approx(wanted[1], abs=step + 2e-3)
    assert found.high == pytest.approx(wanted[2], abs=step + 2e-3)
    assert found.temperature == pytest.approx(wanted[3], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_the_interval_holds_the_true_rate_and_the_estimate_is_hardly_biased(rate: float) -> None:
    found = [lapse_rate(*drawn(400, 4, rate, seed=seed)) for seed in range(300)]
    held = sum(one.low <= rate <= one.high for one in found)
    assert held >= stats.binom.ppf(0.005, 300, 0.95)
    assert np.mean([one.rate for one in found]) == pytest.approx(rate, abs=0.01)


def test_ignorance_is_no_contradiction() -> None:
    """Answers without knowledge, however sure: the interval is as wide as what could be."""
    rng = np.random.default_rng(0)
    for sureness in (0.1, 3.0, 20.0):
        found = lapse_rate(sureness * rng.normal(size=(300, 2)), rng.integers(0, 2, 300))
        assert found.low == 0.0
        assert found.high > 0.3


def test_being_right_half_of_the_time_from_doubt_is_no_contradiction() -> None:
    logits, labels = drawn(600, 2, 0.0, skill=0.8)
    assert np.mean(logits.argmax(axis=1) == labels) < 0.75
    assert lapse_rate(10 * logits, labels).low < 0.02


def test_rows_in_another_order_and_classes_by_other_names_change_nothing() -> None:
    logits, labels = drawn(300, 3, 0.1)
    plain = lapse_rate(logits, labels)
    order = np.random.default_rng(1).permutation(300)
    turned = lapse_rate(logits[order][:, [2, 0, 1]], np.array([1, 2, 0])[labels[order]])
    assert (turned.rate, turned.low, turned.high) == pytest.approx(
        (plain.rate, plain.low, plain.high), abs=1e-4
    )
    shifted = lapse_rate(logits + order[:, None], labels)
    assert shifted.rate == pytest.approx(plain.rate, abs=1e-4)


def test_many_rows_are_thinned_and_a_higher_level_is_wider() -> None:
    logits, labels = drawn(12_000, 2, 0.1)
    found, wide = lapse_rate(logits, labels), lapse_rate(logits, labels, level=0.999)
    assert found.n == 12_000
    assert wide.low < found.low < 0.1 < found.high < wide.high


def test_no_rows_leave_everything_open() -> None:
    found = lapse_rate(np.zeros((0, 4)), np.zeros(0, dtype=int))
    assert math.isnan(found.rate)
    assert (found.low, found.high, found.n) == (0.0, 0.75, 0)
    perfect = lapse_rate(np.eye(3)[[0, 1, 2] * 40] * 9, np.array([0, 1, 2] * 40))
    assert (perfect.rate, perfect.low) == (0.0, 0.0)
    assert perfect.high < 0.05


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.zeros((2, 1)), [0, 0], "two classes"),
        (np.zeros((2, 2)), [0], "a label a row"),
        (np.full((1, 2), np.nan), [0], "finite"),
        (np.zeros((1, 2)), [2], "0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(logits: np.ndarray, labels: list[int], words: str) -> None:
    with pytest.raises(Defect, match=words):
        lapse_rate(logits, np.array(labels))
    with pytest.raises(Defect, match="level"):
        lapse_rate(np.zeros((2, 2)), np.array([0, 1]), level=1.0)


@pytest.mark.parametrize(
    ("classes", "rate", "heat"), [(2, 0.2, 1.0), (6, 0.3, 0.5), (4, 0.05, 2.0)]
)
def test_of_labels_with_a_probability_to_be_true_that_share_is_true(
    classes: int, rate: float, heat: float
) -> None:
    """The truth is known where labels are drawn: probabilities are compared with frequencies."""
    n = 20_000
    logits, labels, truth = drawn_with_truth(n, classes, rate, heat=heat)
    probabilities = true_class_probabilities(logits, labels, lapse_rate(logits, labels))
    assert probabilities.sum(axis=1) == pytest.approx(1)
    is_true = np.eye(classes, dtype=bool)[truth]
    for low in np.arange(0, 1, 0.1):
        here = (probabilities >= low) & (probabilities < low + 0.1)
        if here.sum() < 200:
            continue
        expected, found = probabilities[here].mean(), is_true[here].mean()
        assert found == pytest.approx(expected, abs=4 * math.sqrt(0.25 / here.sum()) + 0.01)
    changed = probabilities.argmax(axis=1)
    assert (changed == truth).mean() > (labels == truth).mean() + rate / 10


def test_a_label_stands_where_nothing_speaks_against_it() -> None:
    logits, labels = np.array([[900.0, 0.0, 0.0], [0.0, 1.0, 2.0]]), np.array([1, 0])
    for lapse in (Lapse(0.0, 0.0, 0.1, 1.0, 2), Lapse(math.nan, 0.0, 0.7, math.nan, 0)):
        assert (true_class_probabilities(logits, labels, lapse) == np.eye(3)[labels]).all()
    blind = true_class_probabilities(logits, labels, Lapse(0.2, 0.1, 0.3, math.inf, 2))
    assert blind[0] == pytest.approx([0.1, 0.8, 0.1])
