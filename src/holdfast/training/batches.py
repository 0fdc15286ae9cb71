"""A step's rows in pieces, and the fixed sample that is watched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.core.updates import Draw


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
