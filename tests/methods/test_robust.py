"""Generalized cross-entropy against the Box-Cox transform of the probability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special
from torch.nn.functional import cross_entropy

from holdfast.core.updates import ForwardPass
from holdfast.methods.losses import GeneralizedCrossEntropy
from holdfast.training.task import ClassifierOutput


def told(q: float, logits: torch.Tensor, labels: torch.Tensor, times: float = 1) -> torch.Tensor:
    passed = ForwardPass(
        np.arange(len(labels)), {"labels": labels}, ClassifierOutput(logits, logits)
    )
    plain = cross_entropy(logits, labels, reduction="none")
    return GeneralizedCrossEntropy(q)(passed, times * plain)


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 5, generator=generator)
    return logits, torch.randint(0, 5, (40,), generator=generator)


@pytest.mark.parametrize("q", [0.01, 0.3, 0.7, 1.0])
def test_it_is_the_box_cox_transform_of_the_probability(q: float) -> None:
    logits, labels = drawn()
    chances = special.softmax(logits.double().numpy(), axis=1)[np.arange(40), labels]
    assert np.allclose(told(q, logits, labels), -special.boxcox(chances, q), atol=1e-5)


def test_its_gradient_is_that_of_cross_entropy_times_the_probability_to_the_power_q() -> None:
    logits, labels = drawn()
    slopes = []
    for term in (
        lambda z: told(0.7, z, labels),
        lambda z: cross_entropy(z, labels, reduction="none"),
    ):
        z = logits.clone().requires_grad_()
        slopes.append(torch.autograd.grad(term(z).sum(), z)[0])
    weight = logits.softmax(1)[torch.arange(40), labels] ** 0.7
    assert torch.allclose(slopes[0], weight[:, None] * slopes[1], atol=1e-5)


def test_a_row_that_is_certain_has_no_loss_and_no_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = told(0.7, logits, torch.tensor([0]))
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert logits.grad is not None
    assert not logits.grad.any()


def test_what_other_terms_made_of_a_row_stays_a_factor() -> None:
    logits, labels = drawn()
    assert torch.allclose(told(0.7, logits, labels, times=3), 3 * told(0.7, logits, labels))
