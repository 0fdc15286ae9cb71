"""What a method is to the loop over episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from holdfast.core.records import Floats, Ints
from holdfast.episodes.reader import Reader
from holdfast.episodes.tasks import Episode, Pool, Shape

Vectors = Callable[[Ints], Floats]


@dataclass(frozen=True, slots=True)
class Step:
    """One update: the ``index``-th of its method. ``share`` of the planned rates is used, from the
    schedule; ``optimizer`` holds the weights that learn, with rates set for this update."""

    reader: Reader
    pool: Pool
    shape: Shape
    seed: int
    index: int
    share: float
    optimizer: Any

    def episode(self) -> Episode:
        """The training episode of this update."""
        return self.pool.draw(self.shape, self.seed, "train", self.index)


class StartMethod(Protocol):
    """A way to learn a start from training tasks, and to meet a new one from it.

    ``adapts`` says that meeting a task changes all weights, so that vectors of rows cannot be
    shared by episodes. ``inner`` are the method's numbers, for the record; ``head`` is what learns
    beside the network.
    """

    name: str
    adapts: bool

    @property
    def head(self) -> nn.Module | None: ...

    @property
    def inner(self) -> dict[str, Any]: ...

    def update(self, step: Step) -> float:
        """Learn from one draw of the training tasks; gives its loss in nats."""

    def answer(self, reader: Reader, episode: Episode, vectors: Vectors) -> Floats:
        """Logits [ways · queries, ways] of the query rows, after seeing the support rows alone. The
        network is as it was afterwards. ``vectors`` gives what ``reader.vectors`` would."""
