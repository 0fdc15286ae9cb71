"""Reptile (Nichol, Achiam and Schulman 2018, arXiv 1803.02999)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from holdfast.core.records import Floats
from holdfast.episodes.methods.base import Step, Vectors
from holdfast.episodes.methods.inner import descend, follow
from holdfast.episodes.methods.maml import adapted_answer
from holdfast.episodes.reader import Reader
from holdfast.episodes.tasks import Episode

# How far the start moves to where a task led, at the first of the updates; linearly to none.
OUTER = 0.5


class Reptile:
    """A task is met by ``steps`` of gradient descent on all weights, on other rows of it at each;
    the start moves a share ε of the way to where they led:

        θ ← θ + ε (θ′ − θ),

    ε falls from ``OUTER`` to 0 (the paper's Omniglot runs: from 1, over five tasks at once). All
    rows of the episode are learned from. Differs from ``maml`` in that no row judges: what moves
    the start along is the agreement of gradients of different rows of a task.
    """

    name = "reptile"
    adapts = True
    head: nn.Module | None = None

    def __init__(self, steps: int, rate: float) -> None:
        self.steps, self.rate = steps, rate

    @property
    def inner(self) -> dict[str, Any]:
        return {"inner_steps": self.steps, "inner_rate": self.rate, "outer": OUTER}

    def update(self, step: Step) -> float:
        episode, reader = step.episode(), step.reader
        rows = np.concatenate([episode.support, episode.query], axis=1)
        parts = np.array_split(rows, min(self.steps, rows.shape[1]), axis=1)
        ways = np.arange(episode.ways)
        batches = [(part.ravel(), np.repeat(ways, part.shape[1])) for part in parts]
        before = [weight.detach().clone() for weight in reader.learns]
        _, loss = descend(reader, batches, episode.ways, self.rate)
        with torch.no_grad():
            for weight, start in zip(reader.learns, before, strict=True):
                weight.copy_(start + OUTER * step.share * (weight - start))
        follow(reader, rows)
        return loss

    def answer(self, reader: Reader, episode: Episode, vectors: Vectors) -> Floats:
        return adapted_answer(reader, episode, self.steps, self.rate)
