"""Balanced classes: each epoch draws every class alike often, other rows each time.

An epoch of n rows over K classes gives each class n ÷ K places, or with ``strength`` s in (0, 1) a
share in proportion to its rows to the power 1 − s. A class with more rows than places gives a
sample without replacement; one with fewer gives every row, as often as all of them fit, and some
once more. So a rare class is learnt from as much as a common one; unlike weights in the loss, which
make single updates jump, it changes which rows travel. What is measured and scored stays as the
rows are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.core.updates import Draw, Pool, like_lengths
from holdfast.methods.registry import METHODS, Method, Parts, setting

WINDOW = 16


def places_of(sizes: Ints, total: int, strength: float) -> Ints:
    """How many of ``total`` places each class [K] of these sizes gets: in proportion to
    size^(1 − strength), the largest remainders rounded up."""
    share = np.asarray(sizes, dtype=np.float64) ** (1 - strength)
    exact = total * share / share.sum()
    places: Ints = np.floor(exact).astype(np.int64)
    left = total - int(places.sum())
    places[np.argsort(places - exact, kind="stable")[:left]] += 1
    return places


def balanced(labels: Ints, strength: float, rng: np.random.Generator) -> Ints:
    """Positions [n] of an epoch over rows of these ``labels`` [n], in an order of chance."""
    present, sizes = np.unique(labels, return_counts=True)
    chosen = []
    for label, size, places in zip(
        present, sizes, places_of(sizes, len(labels), strength), strict=True
    ):
        rows = np.flatnonzero(labels == label)
        every, more = divmod(int(places), int(size))
        chosen += [np.tile(rows, every), rng.permutation(rows)[:more]]
    return rng.permutation(np.concatenate(chosen))


@dataclass(frozen=True, slots=True)
class Balance:
    """The source, and its setting: ``strength``, 1 for classes alike, near 0 for them as they
    are."""

    strength: float = setting(1.0, above=0, most=1)
    name: ClassVar[str] = "balance"
    has_epochs: ClassVar[bool] = True

    def steps_per_epoch(self, pool: Pool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: Pool, step: int) -> Draw:
        epoch, index = divmod(step, self.steps_per_epoch(pool))
        return Draw(pool.once(epoch, lambda: self._batches(pool, epoch))[index])

    def _batches(self, pool: Pool, epoch: int) -> list[Ints]:
        assert pool.labels is not None
        rng = generator(pool.seed, "balance", pool.phase, epoch)
        order = balanced(pool.labels, self.strength, rng)
        return like_lengths(order, pool.lengths, pool.batch, WINDOW * pool.batch, rng)


METHODS.add("balance", Method(Balance, lambda asked: Parts(source=asked), needs_classes=True))
