"""Focal loss against the slope that its paper works out by hand, and at the ends of γ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from holdfast.core.updates import ForwardPass
from holdfast.methods.losses import Focal
from holdfast.training.task import ClassifierOutput


def told(gamma: float, logits: torch.Tensor, labels: torch.Tensor, times: float) -> torch.Tensor:
    passed = ForwardPass(
        np.arange(len(labels)), {"labels": labels}, ClassifierOutput(logits, logits)
    )
    plain = cross_entropy(logits, labels, reduction="none")
    return Focal(gamma)(passed, times * plain)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_its_slope_is_that_of_the_paper(gamma: float) -> None:
    """1708.02002, appendix B, of two classes: dℓ/dx = y (1 − p)^γ (γ p log p + p − 1), x being the
    logit of the class y = 1 above the other."""
    above = torch.linspace(-4, 4, 33).requires_grad_()
    for label, sign in ((1, 1.0), (0, -1.0)):
        logits = torch.stack([torch.zeros_like(above), above], dim=1)
        loss = told(gamma, logits, torch.full((33,), label), 1.0)
        (slope,) = torch.autograd.grad(loss.sum(), above)
        p = torch.sigmoid(sign * above.detach()).double()
        wanted = sign * (1 - p) ** gamma * (gamma * p * p.log() + p - 1)
        assert torch.allclose(slope.double(), wanted, atol=1e-5)


def test_small_gamma_is_cross_entropy_and_what_other_terms_made_stays_a_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 5, generator=generator)
    labels = torch.randint(0, 5, (40,), generator=generator)
    plain = cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(told(1e-9, logits, labels, 1.0), plain, atol=1e-5)
    assert torch.allclose(told(2.0, logits, labels, 3.0), 3 * told(2.0, logits, labels, 1.0))


def test_a_row_that_is_certain_has_no_loss_and_a_finite_slope() -> None:
    logits = torch.tensor([[80.0, 0.0], [0.0, 80.0]], requires_grad=True)
    loss = told(0.5, logits, torch.tensor([0, 0]), 1.0)
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.tolist() == pytest.approx([0.0, 80.0], abs=1e-5)
    assert torch.isfinite(slope).all()
