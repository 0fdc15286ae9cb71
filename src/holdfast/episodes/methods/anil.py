"""Almost no inner loop (Raghu, Raghu, Bengio and Vinyals 2019, arXiv 1909.09157)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.core.records import Floats
from holdfast.episodes.methods.base import Step, Vectors
from holdfast.episodes.reader import Reader
from holdfast.episodes.tasks import Episode


def fitted_head(
    support: Tensor, labels: Tensor, ways: int, steps: int, rate: float
) -> tuple[Tensor, Tensor]:
    """Weights [ways, D] and biases [ways] after ``steps`` of gradient descent at ``rate`` on the
    mean cross-entropy of support rows [n, D], from zero.

    The gradient is written out, ∂L/∂W = (softmax(xW + b) − y)ᵀ x ÷ n, so that what comes out is a
    plain function of ``support`` that can be differentiated, its second order with it. From zero no
    class is another one's equal by name, and a start needs no head of so many ways (the zeroing of
    Kao, Chiu and Chen 2021, arXiv 2106.15367).
    """
    wanted = nn.functional.one_hot(labels, ways).to(support.dtype)
    weight = support.new_zeros(ways, support.shape[1])
    bias = support.new_zeros(ways)
    for _ in range(steps):
        gap = (torch.softmax(support @ weight.T + bias, dim=1) - wanted) / len(support)
        weight = weight - rate * (gap.T @ support)
        bias = bias - rate * gap.sum(dim=0)
    return weight, bias


class Anil:
    """A task is met by fitting the last layer alone to its support rows, by ``steps`` of gradient
    descent; the network learns to give features on which that ends well.

    Features are multiplied by √s (``reader.spread``), so that one ``rate`` fits every architecture.
    The outer gradient is exact: through a last layer of a few thousand weights the second order
    costs nothing to speak of. Differs from ``maml`` in that the body stays as it is.
    """

    name = "anil"
    adapts = False
    head: nn.Module | None = None

    def __init__(self, steps: int, rate: float) -> None:
        self.steps, self.rate = steps, rate

    @property
    def inner(self) -> dict[str, Any]:
        return {"inner_steps": self.steps, "inner_rate": self.rate}

    def _logits(self, support: Tensor, episode: Episode, query: Tensor, scale: float) -> Tensor:
        labels = torch.as_tensor(episode.support_labels, device=support.device)
        unit = scale**0.5
        weight, bias = fitted_head(unit * support, labels, episode.ways, self.steps, self.rate)
        logits: Tensor = unit * query @ weight.T + bias
        return logits

    def update(self, step: Step) -> float:
        episode, reader = step.episode(), step.reader
        reader.network.train()
        rows = np.concatenate([episode.support.ravel(), episode.query.ravel()])
        features = reader.features(rows)
        cut = episode.support.size
        logits = self._logits(features[:cut], episode, features[cut:], reader.scale)
        labels = torch.as_tensor(episode.query_labels, device=logits.device)
        loss = nn.functional.cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        step.optimizer.step()
        return float(loss.detach())

    def answer(self, reader: Reader, episode: Episode, vectors: Vectors) -> Floats:
        support = torch.from_numpy(vectors(episode.support.ravel()))
        query = torch.from_numpy(vectors(episode.query.ravel()))
        return self._logits(support, episode, query, reader.scale).numpy()
