"""Prototypical networks (Snell, Swersky and Zemel 2017, arXiv 1703.05175)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.core.records import Floats
from holdfast.plugins.episodes.methods.base import Step, Vectors
from holdfast.plugins.episodes.reader import FeatureReader
from holdfast.plugins.episodes.tasks import Episode


def distances(support: Tensor, query: Tensor) -> Tensor:
    """‖query − mean of a class‖² of support [ways, shots, D] and query [n, D] → [n, ways]."""
    means = support.mean(dim=1)
    return ((query[:, None] - means[None]) ** 2).sum(dim=2)


class Prototypes:
    """A class is the mean of its support rows, and a row is of the nearest class:

        p(c | x) = softmax_c(−s ‖f(x) − mean_k f(x_ck)‖²),

    trained on training episodes as it is used on new ones. ``s`` is fixed by the features at the
    start (``reader.spread``), since those of unlike architectures have unlike size.
    """

    name = "prototypes"
    head: nn.Module | None = None

    @property
    def inner(self) -> dict[str, Any]:
        return {}

    def update(self, step: Step) -> float:
        episode, reader = step.episode(), step.reader
        reader.network.train()
        rows = np.concatenate([episode.support.ravel(), episode.query.ravel()])
        features = reader.features(rows)
        support = features[: episode.support.size].view(*episode.support.shape, -1)
        logits = -reader.scale * distances(support, features[episode.support.size :])
        labels = torch.as_tensor(episode.query_labels, device=logits.device)
        loss = nn.functional.cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        return float(loss.detach())

    def answer(self, reader: FeatureReader, episode: Episode, vectors: Vectors) -> Floats:
        support = torch.from_numpy(vectors(episode.support.ravel()))
        query = torch.from_numpy(vectors(episode.query.ravel()))
        found = distances(support.view(*episode.support.shape, -1), query)
        return (-reader.scale * found).numpy()
