"""Label smoothing against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from holdfast.core.updates import Passed
from holdfast.methods.smoothing import LabelSmoothing
from holdfast.tasks.classification import ClassifierOutput


def smoothed(
    share: float, logits: torch.Tensor, labels: torch.Tensor, plain: torch.Tensor
) -> torch.Tensor:
    passed = Passed(np.arange(len(labels)), {"labels": labels}, ClassifierOutput(logits, logits))
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


def test_a_certain_answer_is_punished() -> None:
    logits = torch.tensor([[50.0, 0.0], [2.0, 0.0]])
    labels = torch.tensor([0, 0])
    plain = cross_entropy(logits, labels, reduction="none")
    certain, sure = smoothed(0.1, logits, labels, plain).tolist()
    assert certain > sure
