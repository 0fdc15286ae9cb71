"""Logit pairing: rows drawn twice, and what two forms of a row are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from holdfast.core.updates import ForwardPass, RowPool
from holdfast.methods.agreement import Pairing, repeated_row_pairs


@dataclass(frozen=True)
class Rows:
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)


def test_an_epoch_draws_every_row_twice_side_by_side() -> None:
    pool = RowPool(Rows(np.arange(21)), 8, 0, "p")
    source = Pairing()
    draws = [source.draw(pool, step).rows for step in range(source.steps_per_epoch(pool))]
    assert sorted(np.concatenate(draws).tolist()) == sorted([*range(21), *range(21)])
    assert all((draw[::2] == draw[1::2]).all() for draw in draws)
    assert max(map(len, draws)) == 8


def test_pairs_are_found_in_any_order() -> None:
    assert repeated_row_pairs(np.array([5, 2, 5, 7, 2, 2, 2])).tolist() == [[1, 4], [5, 6], [0, 2]]
    assert repeated_row_pairs(np.array([1, 2, 3])).shape == (0, 2)


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_and_its_gradient_are_those_of_autograds_own_difference(several: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator, requires_grad=True)
    labels = torch.zeros(5, 3) if several else torch.zeros(5, dtype=torch.int64)
    rows = np.array([4, 9, 4, 9, 1])
    passed = ForwardPass(rows, {"labels": labels}, SimpleNamespace(logits=logits))
    losses = Pairing(weight=3.0)(passed, torch.ones(5))
    assert losses[4] == 1
    gap = logits[:2] - logits[2:4]
    if not several:
        # Of classes a shift of all logits is no other answer.
        gap = gap - gap.mean(1, keepdim=True)
    expected = 1 + 1.5 * torch.nn.functional.mse_loss(gap, torch.zeros(2, 3), reduction="none")
    torch.testing.assert_close(losses[:2], expected.mean(1))
    torch.testing.assert_close(losses[2:4], losses[:2])
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert (gradient[4] == 0).all()
    torch.testing.assert_close(gradient[0], -gradient[2])


def test_a_shift_of_all_logits_is_no_other_answer() -> None:
    logits = torch.tensor([[1.0, 2.0], [4.0, 5.0]])
    passed = ForwardPass(
        np.array([0, 0]), {"labels": torch.tensor([0, 0])}, SimpleNamespace(logits=logits)
    )
    torch.testing.assert_close(Pairing()(passed, torch.zeros(2)), torch.zeros(2))
