"""The baseline of meta-learning: features, frozen or tuned in the ordinary way, and a head that is
fitted anew to each task's support rows (Chen et al. 2019, arXiv 1904.04232; Tian et al. 2020,
arXiv 2003.11539)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.logistic import Array, first_softmax, fit_softmax, logits_of
from holdfast.plugins.episodes.methods.base import Step, Vectors
from holdfast.plugins.episodes.reader import FeatureReader
from holdfast.plugins.episodes.tasks import Episode, TaskPool

# Of the penalty on unit vectors: the weaker of two usual ones, as a few rows a class need.
STRENGTH = 10.0
READOUTS = ("logistic", "centroid")


def unit_length(vectors: Floats) -> Array:
    """Each row divided by its length; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float64)


def read_out(how: str, support: Floats, labels: Ints, query: Floats) -> Floats:
    """Logits [m, ways] of query vectors [m, D] by a head fitted to support vectors [n, D]:
    ``logistic`` regression with a ridge, or minus the squared distance to each class's mean times
    ``STRENGTH`` (``centroid``); both on vectors of unit length."""
    x, q = unit_length(support), unit_length(query)
    if how == "logistic":
        table = fit_softmax(x, labels, STRENGTH, first_softmax(x, labels), tolerance=1e-3, steps=50)
        return logits_of(table, q)
    ways = int(labels.max()) + 1
    means = np.stack([x[labels == one].mean(axis=0) for one in range(ways)])
    return np.asarray(-STRENGTH * ((q[:, None] - means[None]) ** 2).sum(axis=2))


class Embedding:
    """A classifier of all training classes at once, of which the features are kept.

    A batch has as many rows as an episode of the other methods, so that all see equally many. Where
    the tasks have classes of their own, a row is told from the classes of its task alone. Its last
    layer learns from zero at ``HEAD_RATE``. ``readout`` names the head that new tasks get.
    """

    name = "embedding"
    HEAD_RATE = 5e-3

    def __init__(self, pool: TaskPool, width: int, readout: str = "logistic") -> None:
        self.readout = readout
        self._rows = np.concatenate([r for task in pool.tasks for r in task.rows])
        counts = [len(r) for task in pool.tasks for r in task.rows]
        self._labels = np.repeat(np.arange(len(counts)), counts)
        sizes = [len(task.classes) for task in pool.tasks]
        of = np.repeat(np.arange(len(sizes)), sizes)
        self._same_task = torch.from_numpy(of[:, None] == of[None])
        self.head = nn.Linear(width, len(counts))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def inner(self) -> dict[str, Any]:
        return {"readout": self.readout}

    def update(self, step: Step) -> float:
        reader = step.reader
        size = min(step.shape.ways * step.shape.rows, len(self._rows))
        rng = generator(step.seed, "batch", step.index)
        chosen = rng.choice(len(self._rows), size, replace=False)
        reader.network.train()
        features = reader.features(self._rows[chosen])
        labels = torch.from_numpy(self._labels[chosen])
        logits = self.head(reader.scale**0.5 * features)
        other = ~self._same_task[labels]
        masked = logits.masked_fill(other.to(logits.device), -torch.inf)
        loss = nn.functional.cross_entropy(masked, labels.to(logits.device))
        torch.autograd.backward(loss)
        return float(loss.detach())

    def answer(self, reader: FeatureReader, episode: Episode, vectors: Vectors) -> Floats:
        support, query = vectors(episode.support.ravel()), vectors(episode.query.ravel())
        return read_out(self.readout, support, episode.support_labels, query)
