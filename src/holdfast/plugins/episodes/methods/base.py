"""What a method is to the loop over episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from holdfast.core.records import Floats, Ints
from holdfast.plugins.episodes.reader import FeatureReader
from holdfast.plugins.episodes.tasks import Episode, Shape, TaskPool

Vectors = Callable[[Ints], Floats]


@dataclass(frozen=True, slots=True)
class Step:
    """One update: the ``index``-th of its method."""

    reader: FeatureReader
    pool: TaskPool
    shape: Shape
    seed: int
    index: int

    def episode(self) -> Episode:
        """The training episode of this update."""
        return self.pool.draw(self.shape, self.seed, "train", self.index)


class StartMethod(Protocol):
    """A way to learn a start from training tasks, and to meet a new one from it: by the vectors of
    its rows, which episodes share.

    ``inner`` are the method's numbers, for the record; ``head`` is what learns beside the network.
    """

    name: str

    @property
    def head(self) -> nn.Module | None: ...

    @property
    def inner(self) -> dict[str, Any]: ...

    def update(self, step: Step) -> float:
        """The loss in nats of one draw of the training tasks, and its gradient in the weights."""

    def answer(self, reader: FeatureReader, episode: Episode, vectors: Vectors) -> Floats:
        """Logits [ways · queries, ways] of the query rows, after seeing the support rows alone. The
        network is as it was afterwards. ``vectors`` gives what ``reader.vectors`` would."""
