"""Mixup of hidden states: what is passed to the head, and who is mixed with whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from holdfast.core.updates import ForwardPass
from holdfast.methods.losses import Mixup, mixed_losses, pairs_of
from holdfast.training.task import ClassifierOutput


def test_it_is_the_loss_of_mixed_features_against_mixed_targets() -> None:
    """Through the head itself, and against soft targets, as PyTorch has them."""
    torch.manual_seed(0)
    head, features = torch.nn.Linear(6, 4).double(), torch.randn(9, 6).double()
    labels, partners = torch.randint(0, 4, (9,)), torch.randperm(9)
    shares = torch.rand(9).double()[:, None]
    mixed = head(shares * features + (1 - shares) * features[partners])
    soft = shares * one_hot(labels, 4) + (1 - shares) * one_hot(labels[partners], 4)
    expected = cross_entropy(mixed, soft, reduction="none")
    found = mixed_losses(head(features), labels, partners, shares[:, 0])
    assert torch.allclose(found, expected, atol=1e-12)


def test_a_share_of_one_is_the_row_itself() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    found = mixed_losses(logits, labels, torch.arange(5).flip(0), torch.ones(5))
    assert torch.allclose(found, cross_entropy(logits, labels, reduction="none"))


def test_who_is_mixed_follows_from_the_rows_and_not_from_their_order() -> None:
    rows = np.array([7, 3, 11, 2, 5])
    partners, shares = pairs_of(rows, 0.4)
    order = np.array([4, 0, 3, 1, 2])
    others, again = pairs_of(rows[order], 0.4)
    assert (rows[order][others] == rows[partners][order]).all()
    assert np.array_equal(again, shares[order])
    assert not np.array_equal(pairs_of(rows + 1, 0.4)[1], shares)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    _, shares = pairs_of(np.arange(4000), alpha)
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_the_term_mixes_the_rows_of_its_update() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    rows = np.array([40, 2, 9, 17, 5, 30])
    passed = ForwardPass(rows, {"labels": labels}, ClassifierOutput(logits, logits))
    partners, shares = pairs_of(rows, 1.0)
    expected = [
        cross_entropy(share * logits[i] + (1 - share) * logits[j], labels[i]) * share
        + cross_entropy(share * logits[i] + (1 - share) * logits[j], labels[j]) * (1 - share)
        for i, (j, share) in enumerate(zip(partners, shares, strict=True))
    ]
    found = Mixup(1.0)(passed, torch.zeros(6))
    assert torch.allclose(found, torch.stack(expected).float(), atol=1e-5)
