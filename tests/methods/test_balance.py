"""Epochs of balanced classes: how many of each, which rows, the same each time."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.updates import ForwardPass, RowPool
from holdfast.methods.balance import (
    Balance,
    BalancedLoss,
    _parts,
    class_weights,
    places_per_class,
    target_setting,
)


@dataclass(frozen=True)
class Rows:
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return 3 + np.arange(len(self.labels)) % 7

    def __len__(self) -> int:
        return len(self.labels)


LABELS = np.array([0] * 60 + [1] * 12 + [2] * 3)


def epoch(source: Balance, number: int, seed: int = 0, batch: int = 8) -> np.ndarray:
    """The rows of one epoch, drawn step by step."""
    pool = RowPool(Rows(LABELS), batch, seed, "finetune")
    count = source.steps_per_epoch(pool)
    draws = [source.draw(pool, number * count + index) for index in range(count)]
    assert all(len(draw) == batch for draw in draws[:-1] if len(draw) != len(LABELS) % batch)
    return np.concatenate([draw.rows for draw in draws])


def test_every_class_comes_alike_often_and_an_epoch_is_as_long_as_the_rows() -> None:
    rows = epoch(Balance(), 0)
    assert len(rows) == len(LABELS)
    assert np.bincount(LABELS[rows]).tolist() == [25, 25, 25]


def test_a_common_class_gives_no_row_twice_and_a_rare_one_all_of_its_rows() -> None:
    rows = epoch(Balance(), 0)
    counts = np.bincount(rows, minlength=len(LABELS))
    assert counts[LABELS == 0].max() == 1
    assert set(counts[LABELS == 1].tolist()) == {2, 3}
    assert set(counts[LABELS == 2].tolist()) == {8, 9}


def test_other_rows_come_in_another_epoch_and_all_of_them_in_time() -> None:
    epochs = [epoch(Balance(), number) for number in range(12)]
    common = [set(rows[LABELS[rows] == 0].tolist()) for rows in epochs]
    assert common[0] != common[1]
    assert set.union(*common) == set(range(60))


@pytest.mark.parametrize(
    ("strength", "shares"), [(1.0, [25, 25, 25]), (0.5, [45, 20, 10]), (1e-9, [60, 12, 3])]
)
def test_strength_goes_from_rows_as_they_are_to_classes_alike(
    strength: float, shares: list[int]
) -> None:
    roots = np.sqrt([60, 12, 3])
    if strength == 0.5:
        assert np.abs(75 * roots / roots.sum() - shares).max() < 1
    assert np.bincount(LABELS[epoch(Balance(strength), 3)]).tolist() == shares


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.floats(0.01, 1))
def test_places_add_up_and_follow_the_sizes(sizes: list[int], strength: float) -> None:
    places = places_per_class(np.array(sizes), sum(sizes), strength)
    assert places.sum() == sum(sizes)
    share = np.array(sizes) ** (1 - strength)
    assert np.abs(places - sum(sizes) * share / share.sum()).max() < 1


def term(asked: Balance, labels: np.ndarray = LABELS) -> BalancedLoss:
    (made,) = _parts(asked).terms
    assert isinstance(made, BalancedLoss)
    return made.of_rows(labels, ("a", "b", "c"))


def test_drawing_alone_brings_no_term_and_no_target_no_move() -> None:
    assert _parts(Balance()).terms == ()
    assert _parts(Balance(by="none", target="even")).terms == ()
    assert _parts(Balance(by="none")).source is None
    assert target_setting({"balance": {"strength": 1.0}}) is None
    assert target_setting({"balance": {"target": "even"}}) == "even"


def test_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    wanted = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert class_weights(Balance(by="weights"), LABELS, 3) == pytest.approx(wanted)
    half = class_weights(Balance(by="weights", strength=0.5), LABELS, 3)
    assert half / half[0] == pytest.approx((wanted / wanted[0]) ** 0.5)
    assert half[LABELS].mean() == pytest.approx(1)


def test_effective_weights_are_a_sum_of_powers() -> None:
    """E_n = Σ_{k < n} β^k, the paper's definition before its closed form."""
    numbers = np.array([sum(0.999**k for k in range(n)) for n in (60, 12, 3)])
    found = class_weights(Balance(by="effective"), LABELS, 3)
    assert found / found[0] == pytest.approx(numbers[0] / numbers)
    assert found[LABELS].mean() == pytest.approx(1)


@pytest.mark.parametrize("asked", [Balance(target="rows"), Balance(by="weights", target="rows")])
def test_logits_that_know_the_rows_rates_are_right_whatever_is_drawn(asked: Balance) -> None:
    """A model without features can learn the rates alone: the minimum of the expected loss must be
    at the logarithms of the rows' rates, not of the drawn ones."""
    import torch
    from scipy.optimize import minimize

    made, rates = term(asked), np.array([0.8, 0.16, 0.04])
    drawn = np.full(3, 1 / 3) if asked.by == "draw" else rates
    labels = torch.arange(3)

    def expected(z: np.ndarray) -> float:
        logits = torch.tensor(z, dtype=torch.float32).repeat(3, 1)
        passed = ForwardPass(np.arange(3), {"labels": labels}, SimpleNamespace(logits=logits))
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return float(made(passed, plain).numpy() @ drawn)

    best = minimize(expected, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-4}).x
    assert np.exp(best) / np.exp(best).sum() == pytest.approx(rates, abs=2e-3)
