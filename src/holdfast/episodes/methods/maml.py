"""Model-agnostic meta-learning of the first order (Finn, Abbeel and Levine 2017, 1703.03400)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from holdfast.core.records import Floats
from holdfast.episodes.methods.base import Step, Vectors
from holdfast.episodes.methods.inner import descend, follow, put_back
from holdfast.episodes.reader import Reader
from holdfast.episodes.tasks import Episode


class Maml:
    """A task is met by ``steps`` of gradient descent on all weights; the start learns from the loss
    of the query rows after them:

        θ ← θ − β ∇_θ′ L_query(θ′),  θ′ = θ − α Σ ∇ L_support.

    Of the first order: the gradient is taken at θ′ and applied at θ, which leaves out how θ′ turns
    with θ (section 5.2 of the paper: nearly the same result). The head begins at the prototypes of
    each task, see ``inner``. Differs from ``reptile`` in that query rows judge the inner loop.
    """

    name = "maml"
    adapts = True
    head: nn.Module | None = None

    def __init__(self, steps: int, rate: float) -> None:
        self.steps, self.rate = steps, rate

    @property
    def inner(self) -> dict[str, Any]:
        return {"inner_steps": self.steps, "inner_rate": self.rate, "order": "first"}

    def update(self, step: Step) -> float:
        episode, reader = step.episode(), step.reader
        support = [(episode.support.ravel(), episode.support_labels)] * self.steps
        labels = torch.as_tensor(episode.query_labels, device=reader.device)
        with put_back(reader.learns):
            head, _ = descend(reader, support, episode.ways, self.rate)
            loss = nn.functional.cross_entropy(head(reader.features(episode.query)), labels)
            torch.autograd.backward(loss)
        step.optimizer.step()
        follow(reader, episode.query)
        return float(loss.detach())

    def answer(self, reader: Reader, episode: Episode, vectors: Vectors) -> Floats:
        return adapted_answer(reader, episode, self.steps, self.rate)


def adapted_answer(reader: Reader, episode: Episode, steps: int, rate: float) -> Floats:
    """Logits of the query rows after ``steps`` on the support rows; then all is as it was."""
    support = [(episode.support.ravel(), episode.support_labels)] * steps
    with put_back(reader.learns):
        head, _ = descend(reader, support, episode.ways, rate)
        with torch.no_grad():
            return head(reader.features(episode.query)).cpu().numpy()
