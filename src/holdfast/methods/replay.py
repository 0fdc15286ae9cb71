"""Replay: general rows, which the base model knew, in every update (2403.08763).

    updates of B training rows and b general ones,   b = share · B · (their lengths' ratio)

so that ``share`` of each update is general by length (tokens, patches), which determines the time.
The training rows are the same, in the same order, as without replay, so that a run with replay
differs only by the added rows. General rows come in random order, all of them before one comes
again; with fewer than one per update they come every few updates. The loss is that of both
together.

The rows are those of ``data.general``. A generative model without such a file generates them itself
before the first step (pseudo-rehearsal, Robins 1995): its output is what it knew, and nothing must
be stored. ``kl_start`` preserves the predictions on the training rows instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.seeds import generator
from holdfast.core.settings import setting
from holdfast.core.updates import BatchSource, Draw, RowPool
from holdfast.methods.registry import METHODS, Method, Parts

if TYPE_CHECKING:
    from holdfast.training.task import Examples

SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Replay:
    """The settings: ``share`` of an update's work that is general; ``written``, the number of rows
    that a model generates itself where none are given."""

    share: float = setting(SHARE, above=0, most=10)
    written: int = setting(400, least=8, most=100_000)

    def add_general_rows(self, inner: BatchSource, general: Examples) -> BatchSource:
        return ReplaySource(inner, general, self.share)


@dataclass(frozen=True, slots=True, eq=False)
class ReplaySource:
    """A source that passes on the draws of ``inner`` and adds ``general`` rows."""

    inner: BatchSource
    general: Examples
    share: float

    @property
    def name(self) -> str:
        return f"{self.inner.name}, replay"

    @property
    def has_epochs(self) -> bool:
        return self.inner.has_epochs

    def steps_per_epoch(self, pool: RowPool) -> int:
        return self.inner.steps_per_epoch(pool)

    def draw(self, pool: RowPool, step: int) -> Draw:
        own_draw = self.inner.draw(pool, step)
        rate = self.per_update(pool)
        # The general rows of these numbers, counted from the run's first.
        first = math.floor(step * rate)
        last = math.floor((step + 1) * rate)
        count, general_places = len(self.general), []
        for turn in range(first // count, (last - 1) // count + 1 if last > first else 0):
            order = generator(pool.seed, "replay", pool.phase, turn).permutation(count)
            general_places.append(order[max(0, first - turn * count) : last - turn * count])
        places = np.concatenate(general_places) if general_places else np.zeros(0, dtype=np.int64)
        if not len(places):
            return own_draw
        general_draw = Draw(len(pool) + places, self.general, places)
        return Draw(own_draw.rows, own_draw.examples, own_draw.places, general_draw)

    def per_update(self, pool: RowPool) -> float:
        """The mean number of general rows per update."""
        ratio = float(np.mean(pool.lengths)) / float(np.mean(self.general.lengths))
        return self.share * pool.batch * ratio


METHODS.add(
    "replay",
    Method(
        Replay,
        lambda settings: Parts(add_general_rows=settings.add_general_rows),
        needs_general=True,
    ),
)
