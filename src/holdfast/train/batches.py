"""Which rows go into which step: seeded, and a function of the step alone.

A step's rows depend on the seed, the phase and the step, never on what was drawn before, so a
resumed run needs only its position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator

WINDOW_BATCHES = 16


def window_batches(lengths: Ints, batch: int, seed: int, phase: str, epoch: int) -> list[Ints]:
    """One epoch in batches of like length, in a random order.

    The rows are shuffled, cut into windows of 16 batches, sorted by length inside each window,
    cut into batches, and the batches of the whole epoch shuffled. Sorting the whole epoch would
    save a little more padding but make long rows travel together each time, with loss spikes.
    Every row occurs exactly once; one batch may be smaller.
    """
    rng = generator(seed, "batches", phase, epoch)
    order = rng.permutation(len(lengths))
    window = WINDOW_BATCHES * batch
    batches: list[Ints] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch] for i in range(0, len(rows), batch)]
    return [batches[i] for i in rng.permutation(len(batches))]


def class_batch(labels: Ints, batch: int, most_classes: int, seed: int, step: int) -> Ints:
    """A batch for contrast: up to ``most_classes`` classes, as many rows of each as fit.

    Classes are drawn without replacement, in proportion to the square root of their size; at
    least two where there are two. Rows are drawn without replacement inside a class; a class with
    fewer rows than its place gives what it has, and the rest is filled from the others.
    """
    rng = generator(seed, "contrast", step)
    present, sizes = np.unique(labels, return_counts=True)
    weight = np.sqrt(sizes)
    count = min(len(present), most_classes, max(2, batch // 2))
    chosen = rng.choice(len(present), size=count, replace=False, p=weight / weight.sum())
    pools = [rng.permutation(np.flatnonzero(labels == present[c])) for c in chosen]
    rows = [pool[: batch // count] for pool in pools]
    rest = np.concatenate([pool[batch // count :] for pool in pools])
    missing = batch - sum(len(part) for part in rows)
    return np.concatenate([*rows, rng.permutation(rest)[:missing]])


def parts_by_length(rows: Ints, lengths: Ints, parts: int) -> list[Ints]:
    """One step's rows in ``parts`` pieces of like length: the same gradient, less padding."""
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    return [part for part in np.array_split(ordered, parts) if len(part)]


def shard(rows: Ints, rank: int, world: int) -> Ints:
    """The rows of one process: every ``world``-th, from ``rank``."""
    return rows[rank::world]


def probe_positions(labels: Sequence[int] | Ints, count: int, seed: int) -> Ints:
    """The train probe: a fixed random sample of positions, in rising order."""
    rng = generator(seed, "train_probe")
    return np.sort(rng.permutation(len(labels))[:count])
