"""Class rates: Bayes' rule against a population drawn at the other rates, and the choice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import norm
from sklearn.metrics import f1_score

from holdfast.core.errors import RecipeError
from holdfast.methods.balance import (
    _f1,
    adjust_logits,
    choose_strength,
    class_shares,
    stated_rates,
    tempered_rates,
)

CENTRES = np.array([-1.0, 0.0, 1.5])


def drawn(rates: list[float], n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=rates)
    return rng.normal(CENTRES[labels], 1.0), labels


def bayes(x: np.ndarray, rates: list[float]) -> np.ndarray:
    """The true logits of normal classes at these rates."""
    return norm.logpdf(x[:, None], CENTRES) + np.log(rates)


def test_moved_logits_are_bayes_rule_of_the_other_population() -> None:
    learned, target = [0.9, 0.08, 0.02], [0.2, 0.3, 0.5]
    x, _ = drawn(target, 500, 0)
    found = softmax(adjust_logits(bayes(x, learned), np.array(learned), np.array(target)), axis=1)
    assert found == pytest.approx(softmax(bayes(x, target), axis=1))


def test_probabilities_are_calibrated_where_they_are_moved_to_and_not_elsewhere() -> None:
    learned, target = [1 / 3, 1 / 3, 1 / 3], [0.9, 0.08, 0.02]
    x, labels = drawn(target, 200_000, 1)
    for logits, honest in (
        (bayes(x, learned), False),
        (adjust_logits(bayes(x, learned), np.array(learned), np.array(target)), True),
    ):
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        gap = np.abs(p.mean(axis=0) - np.bincount(labels) / len(labels)).max()
        assert bool(gap < 0.005) is honest


def test_shares_and_what_lies_between() -> None:
    shares = class_shares(np.array([0] * 6 + [1] * 2), 3)
    assert shares == pytest.approx(np.array([6, 2, 0.5]) / 8.5)
    assert tempered_rates(shares, 0) == pytest.approx(shares)
    assert tempered_rates(shares, 1) == pytest.approx(np.full(3, 1 / 3))


def test_macro_f1_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels, guess = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    wanted = f1_score(labels, guess, average="macro", labels=[0, 1, 2, 3])
    assert _f1(labels, guess, 5) == pytest.approx(wanted)


def test_a_stated_population_is_read_by_name() -> None:
    assert stated_rates({"b": 0.75, "a": 0.25}, ("a", "b"), "k") == pytest.approx([0.25, 0.75])
    assert stated_rates({True: 0.3, False: 0.7}, ("False", "True"), "k")[1] == pytest.approx(0.3)
    # YAML reads the classes 0 and 1 as numbers, and thirds are written rounded.
    assert stated_rates({1: 0.67, 0: 0.335}, ("0", "1"), "k") == pytest.approx([1 / 3, 2 / 3])
    for wrong, rule in (
        ({"a": 1}, "lacks a class"),
        ({"a": 1, "b": 1, "c": 1}, "unknown class"),
        ({"a": 3, "b": 1}, r"(?s)do not add up to 1 \(found: '4'\).*a: 0.75, b: 0.25"),
        ({"a": -1, "b": 2}, "above 0 for 'a'"),
    ):
        with pytest.raises(RecipeError, match=rule):
            stated_rates(wrong, ("a", "b"), "k")


def test_half_of_the_way_stays_unless_the_rows_prove_another_better() -> None:
    rates = [0.95, 0.03, 0.02]
    x, labels = drawn(rates, 60, 2)
    few = choose_strength(bayes(x, rates), labels, np.array(rates), seed=0)
    assert few.strength == 0.5
    assert few.low <= 0
    assert few.target == pytest.approx(np.sqrt(rates) / np.sqrt(rates).sum())
    # Rates that are stated wrongly: the decision that macro-F1 wants is another then.
    x, labels = drawn(rates, 4000, 2)
    wrong = np.array([0.999, 0.0005, 0.0005])
    many = choose_strength(bayes(x, rates), labels, wrong, seed=0)
    assert many.strength < 0.5
    assert 0 < many.low < many.gain < many.high
    assert "points of macro F1" in many.because


def test_where_classes_are_alike_nothing_moves() -> None:
    even = np.full(3, 1 / 3)
    x, labels = drawn(even.tolist(), 300, 3)
    chosen = choose_strength(bayes(x, even.tolist()), labels, even, seed=0)
    assert chosen.target == pytest.approx(even)
