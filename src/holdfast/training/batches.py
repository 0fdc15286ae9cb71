"""A step's rows in pieces, and the fixed sample that is watched.

Evaluation batches: longest rows first, a bounded number of padded tokens each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
