"""Which rows pass together: those of an update in the ordinary way (every row once an epoch, one
pass an update), their pieces, the fixed sample that is watched, and evaluation batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.core.updates import WINDOW, Draw, RowPool, Update, batch_of_epoch


@dataclass(frozen=True, slots=True)
class EveryRow:
    """Every row exactly once an epoch, in an order of chance.

    Each ``window`` batches are sorted by length, so that a batch holds rows of like length, with
    little padding. Sorting the whole epoch would save a little more but make long rows travel
    together each time, with loss spikes. A window of one batch leaves rows of any length together:
    where an update is a mean over tokens, one of short rows gives each of its tokens more weight,
    and after windows of 16 the loss of the tokens of long answers was 0.15 nats higher
    (instructions, 1,000 rows).
    """

    window: int = WINDOW
    name: ClassVar[str] = "every_row"
    has_epochs: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: RowPool, step: int) -> Draw:
        return Draw(
            batch_of_epoch(
                pool, step, "batches", lambda rng: rng.permutation(len(pool)), window=self.window
            )
        )


@dataclass(frozen=True, slots=True)
class OnePass:
    """The gradient at the weights as they are."""

    name: ClassVar[str] = "one_pass"
    passes: ClassVar[int] = 1
    copies: ClassVar[int] = 0

    def __call__(self, update: Update, draw: Draw) -> float:
        return update.gradients(draw)


def parts_by_length(draw: Draw, lengths: Ints, parts: int) -> list[Draw]:
    """One step's rows in ``parts`` pieces of like length: the same gradient, less padding.
    ``lengths`` are those of the examples that it is a draw of."""
    order = np.argsort(lengths[draw.positions], kind="stable")
    return [draw.take(part) for part in np.array_split(order, parts) if len(part)]


def shard(rows: Ints, rank: int, world: int) -> Ints:
    """The rows of one process: every ``world``-th, from ``rank``."""
    return rows[rank::world]


def probe_positions(labels: Sequence[int] | Ints, count: int, seed: int) -> Ints:
    """The train probe: a fixed random sample of positions, in rising order."""
    rng = generator(seed, "train_probe")
    return np.sort(rng.permutation(len(labels))[:count])


def by_length(lengths: Ints, positions: Ints, tokens: int) -> Iterator[Ints]:
    """Evaluation batches, longest rows first, each of at most ``tokens`` padded tokens.

    The first batch is the largest, so that a run that will not fit fails at once.
    """
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        # A row longer than a batch is one by itself.
        size = max(1, tokens // longest)
        yield order[start : start + size]
        start += size
