"""Rows by position → features, by the network that learns: all that a method knows of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import derive_seed
from holdfast.training.plan import by_length

TOKENS = 4096


@dataclass(frozen=True, slots=True)
class FeatureReader:
    """The encoded rows and the network that reads them.

    ``collate`` makes a batch of ``examples`` at some positions. Features are the exact input of the
    network's last linear layer. ``scale`` stands before squared distances of features, so that
    every method begins with distances of one size whatever the architecture: see ``spread``.
    """

    network: Any
    collate: Callable[[Any, Ints], dict[str, Tensor]]
    examples: Any
    device: torch.device
    scale: float = 1.0

    def features(self, positions: Ints) -> Tensor:
        """[n, D] of these rows, in the network's present mode and with its gradients."""
        batch = self.collate(self.examples, np.asarray(positions).ravel())
        inputs = {k: v.to(self.device) for k, v in batch.items() if k != "labels"}
        found: Tensor = self.network.features(**inputs)
        return found.float()

    def vectors(self, positions: Ints) -> Floats:
        """[n, D] of these rows, by the network as it is, which nothing learns from."""
        wanted = np.asarray(positions)
        made = np.zeros((0, 0), dtype=np.float32)
        self.network.eval()
        with torch.no_grad():
            for chosen in by_length(self.examples.lengths[wanted], np.arange(len(wanted)), TOKENS):
                part = self.features(wanted[chosen]).cpu().numpy()
                if not len(made):
                    made = np.zeros((len(wanted), part.shape[1]), dtype=np.float32)
                made[chosen] = part
        return made

    @property
    def learns(self) -> list[nn.Parameter]:
        """The weights that learn, without the head, which is another in every task."""
        head = {id(p) for p in self.network.head.parameters()}
        return [p for p in self.network.parameters() if p.requires_grad and id(p) not in head]


# Between a query row and its nearest prototype at the start: softmax is neither flat nor hard.
DISTANCE = 8.0


def spread(vectors: Floats, labels: Ints) -> float:
    """The scale at which the mean squared distance of rows to the means of other classes than
    theirs is ``DISTANCE``. ``vectors`` [n, D], ``labels`` [n] of two classes or more."""
    classes = np.unique(labels)
    means = np.stack([vectors[labels == one].mean(axis=0) for one in classes])
    squared = ((vectors[:, None] - means[None]) ** 2).sum(axis=2)
    other = labels[:, None] != classes[None]
    mean = float(squared[other].mean())
    return DISTANCE / mean if mean > 0 else 1.0


def scaled(reader: FeatureReader, positions: Ints, labels: Ints) -> FeatureReader:
    """The reader with the ``spread`` of these rows at the start as its scale.

    Batch norms norm by the rows themselves here: in a network that was drawn anew their statistics
    are not of any rows yet, and features grow a hundredfold in the first updates.
    """
    network, kind = reader.network, nn.modules.batchnorm._BatchNorm
    if not any(isinstance(module, kind) for module in network.modules()):
        return replace(reader, scale=spread(reader.vectors(positions), labels))
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    network.train()
    with torch.no_grad():
        found = reader.features(positions).cpu().numpy()
        for name, value in network.named_buffers():
            value.copy_(buffers[name])
    network.eval()
    return replace(reader, scale=spread(found, labels))


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Inside, what torch draws (dropout) depends on this name alone, and outside nothing of it is
    seen: so a run that is continued draws what an unbroken one draws."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, *names))
        yield
