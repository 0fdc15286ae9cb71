"""Label smoothing against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from holdfast.core.updates import ForwardPass
from holdfast.methods.losses import LabelSmoothing
from holdfast.training.task import ClassifierOutput


def smoothed(
    share: float, logits: torch.Tensor, labels: torch.Tensor, plain: torch.Tensor
) -> torch.Tensor:
    passed = ForwardPass(
        np.arange(len(labels)), {"labels": labels}, ClassifierOutput(logits, logits)
    )
    return LabelSmoothing(share)(passed, plain)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("classes", [2, 3, 50])
def test_it_is_that_of_pytorch(share: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = 5 * torch.randn(17, classes, generator=generator)
    labels = torch.randint(0, classes, (17,), generator=generator)
    plain = cross_entropy(logits, labels, reduction="none")
    told = smoothed(share, logits, labels, plain)
    expected = cross_entropy(logits, labels, reduction="none", label_smoothing=share)
    assert torch.allclose(told, expected, atol=1e-5)


def test_a_row_that_writes_pays_the_mean_of_pytorch_s_over_its_target_tokens() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 5 * torch.randn(9, 7, generator=generator)
    expected = torch.randint(0, 7, (9,), generator=generator)
    counts = torch.tensor([2, 4, 3])
    each = cross_entropy(logits, expected, reduction="none", label_smoothing=0.2).split([2, 4, 3])
    plain = cross_entropy(logits, expected, reduction="none").split([2, 4, 3])
    losses = torch.stack([one.mean() for one in plain])
    passed = ForwardPass(np.arange(3), {"counts": counts}, ClassifierOutput(logits, logits))
    told = LabelSmoothing(0.2)(passed, losses)
    assert torch.allclose(told, torch.stack([one.mean() for one in each]), atol=1e-5)


def test_a_certain_answer_is_punished() -> None:
    logits = torch.tensor([[50.0, 0.0], [2.0, 0.0]])
    labels = torch.tensor([0, 0])
    plain = cross_entropy(logits, labels, reduction="none")
    certain, sure = smoothed(0.1, logits, labels, plain).tolist()
    assert certain > sure
