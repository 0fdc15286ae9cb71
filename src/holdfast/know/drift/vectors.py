"""Have the vectors of rows moved? A classifier that learns, from rows that came before, which way
arriving ones differ from the reference, and bets on each next row before it learns from it.

The betting form of the classifier two-sample test (Podkopaev and Ramdas, 2305.00143; Shekhar and
Ramdas, 2112.09162). The classifier is a shrunken linear discriminant (Ledoit and Wolf 2004) between
half of the reference and the rows that arrived; the other half takes no part in learning, and a
row's payoff is its rank among that half (``payoffs``), so its mean is an area under the ROC curve
whatever the classifier is. Rows are forgotten at three speeds: a change a thousand rows after the
start is not outvoted by what came before it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.core.seeds import generator
from holdfast.know.drift.payoffs import beyond, rank_bound, ranks, tail_bound
from holdfast.stats.e_detector import Detector

# Rows, of which so many count: the weight of a row falls by 1 − 1/n with each later one.
MEMORIES = (50, 200, 1000)
# The classifier learns after so many rows, and bets from so many on.
BLOCK, FIRST = 16, 8
# Wider vectors are projected at random onto so many directions.
WIDEST = 512
RIDGE = 0.3
FEWEST = 20


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A reference cut in two: ``precision`` [d, d] and ``mean`` [d] of the half that is learned
    from, ``held`` [m, d] the other; ``onto`` [width, d] a projection, ``None`` where d is all."""

    precision: Floats
    mean: Floats
    held: Floats
    onto: Floats | None

    @property
    def width(self) -> int:
        """Of the vectors that ``read`` takes."""
        return int(len(self.precision) if self.onto is None else len(self.onto))

    def read(self, vectors: Floats) -> Floats:
        """Vectors [n, width] as the halves are, [n, d]."""
        given = np.asarray(vectors, dtype=np.float64)
        return given if self.onto is None else given @ self.onto


@dataclass(frozen=True, slots=True, eq=False)
class VectorWatch:
    """The bets so far: ``sums`` [memories, d] and ``counts`` [memories] of arrived vectors, and the
    classifiers that were learned of them last: ``ways`` [memories, d], NaN before there is one, and
    the sorted scores of the half that is held, ``among`` [memories, m]. They learn at every
    ``BLOCK``-th row of the stream, so that it does not matter in which parts rows are added."""

    halves: Halves
    detector: Detector
    sums: Floats
    counts: Floats
    ways: Floats
    among: Floats

    @classmethod
    def of_reference(cls, vectors: Floats, seed: int = 0) -> VectorWatch:
        """Of reference ``vectors`` [m, d], m at least ``FEWEST``, whatever their order."""
        halves = halve(vectors, seed)
        m, d = halves.held.shape
        bounds = np.tile([rank_bound(m), tail_bound(m)], len(MEMORIES))
        sums, counts = np.zeros((len(MEMORIES), d)), np.zeros(len(MEMORIES))
        unknown = np.full((len(MEMORIES), d), np.nan)
        return cls(
            halves,
            Detector.of_bounds(bounds),
            sums,
            counts,
            unknown,
            np.full((len(MEMORIES), m), np.nan),
        )

    def add(self, vectors: Floats, limit: float) -> tuple[VectorWatch, int | None]:
        """After these rows [n, d], up to the first at which the evidence reaches ``limit``. A row
        of which nothing was read is NaN, and is left out."""
        made, rows, start = self, self.halves.read(vectors), 0
        while start < len(rows):
            part = rows[start : start + BLOCK - made.detector.rows % BLOCK]
            detector, at = made.detector.add(made.payoffs(part), limit)
            sums, counts = made._forgotten(part[np.isfinite(part).all(axis=1)])
            made = replace(made, detector=detector, sums=sums, counts=counts)
            if at is not None:
                return made, start + at
            if detector.rows % BLOCK == 0:
                made = made._learned()
            start += len(part)
        return made, None

    def payoffs(self, rows: Floats) -> Floats:
        """Rank and tail payoffs [n, 2 · memories] by what was learned so far; NaN before that."""
        found = np.full((len(rows), 2 * len(MEMORIES)), np.nan)
        for k, way in enumerate(self.ways):
            scores = rows @ way
            known = np.isfinite(scores)
            found[known, 2 * k] = ranks(scores[known], self.among[k])
            found[known, 2 * k + 1] = beyond(scores[known], self.among[k])
        return found

    def dated(self, vectors: Floats) -> int | None:
        """How many of the last ``vectors`` [n, d] are of the new kind, by the classifier that won
        most as it is now: the longest end by which its ranks exceed their bound in sum. ``None``
        where all do, or it has learned nothing."""
        best = 2 * (self.detector.by // 2)
        place = ranks_of(self.payoffs(self.halves.read(vectors))[:, best])
        won = np.cumsum((place - self.detector.bounds[best])[::-1])
        if not len(won) or won.max() <= 0:
            return None
        back = int(np.argmax(won)) + 1
        return None if back == len(won) else back

    def _learned(self) -> VectorWatch:
        ways, among = self.ways.copy(), self.among.copy()
        for k in np.flatnonzero(self.counts >= FIRST):
            ways[k] = self.halves.precision @ (self.sums[k] / self.counts[k] - self.halves.mean)
            among[k] = np.sort(self.halves.held @ ways[k])
        return replace(self, ways=ways, among=among)

    def _forgotten(self, rows: Floats) -> tuple[Floats, Floats]:
        sums, counts, n = self.sums.copy(), self.counts.copy(), len(rows)
        for k, memory in enumerate(MEMORIES):
            keep = 1 - 1 / memory
            weights = keep ** np.arange(n - 1, -1, -1)
            sums[k] = sums[k] * keep**n + weights @ rows
            counts[k] = counts[k] * keep**n + weights.sum()
        return sums, counts

    def to_json(self) -> dict[str, Any]:
        """What rows brought; the reference is not in it."""
        return {
            "detector": self.detector.to_json(),
            "sums": packed(self.sums),
            "counts": self.counts.tolist(),
            "ways": packed(self.ways),
        }

    def restored(self, said: Mapping[str, Any]) -> VectorWatch:
        """This watch, of the same reference, with what ``to_json`` wrote down."""
        ways = unpacked(said["ways"]).reshape(self.ways.shape)
        return replace(
            self,
            detector=Detector.of(said["detector"]),
            sums=unpacked(said["sums"]).reshape(self.sums.shape),
            counts=np.array(said["counts"], np.float64),
            ways=ways,
            among=np.sort(ways @ self.halves.held.T, axis=1),
        )


def ranks_of(payoffs: Floats) -> Floats:
    """Payoffs with one half, which says nothing, where one is not known."""
    return np.where(np.isnan(payoffs), 0.5, payoffs)


def packed(values: Floats, kind: str = "<f8") -> str:
    """Numbers as a text of JSON, in order."""
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def unpacked(text: str, kind: str = "<f8") -> Floats:
    """The numbers [n] that ``packed`` wrote down, float64."""
    return np.frombuffer(base64.b64decode(text), kind).astype(np.float64)


def halve(vectors: Floats, seed: int) -> Halves:
    """The two halves of reference vectors [m, d], at random by the seed."""
    given, onto = np.asarray(vectors, dtype=np.float64), None
    if given.shape[1] > WIDEST:
        drawn = generator(seed, "drift directions").standard_normal((given.shape[1], WIDEST))
        onto = drawn / np.sqrt(WIDEST)
        given = given @ onto
    order = generator(seed, "halves of a reference").permutation(len(given))
    learn, held = given[order[: len(order) // 2]], given[order[len(order) // 2 :]]
    return Halves(precision_of(learn), learn.mean(axis=0), held, onto)


def precision_of(rows: Floats) -> Floats:
    """The inverse [d, d] of the covariance of rows [n, d], shrunken towards a multiple of the
    identity as far as Ledoit and Wolf (2004) find best, and by ``RIDGE`` of its mean more."""
    n, d = rows.shape
    gaps = rows - rows.mean(axis=0)
    cov = gaps.T @ gaps / n
    mean = float(np.trace(cov)) / d
    if mean <= 0:
        return np.eye(d)
    away = float(((cov - mean * np.eye(d)) ** 2).sum())
    noise = (float(((gaps**2).sum(axis=1) ** 2).sum()) / n - float((cov**2).sum())) / n
    share = min(1.0, max(0.0, noise / away)) if away > 0 else 1.0
    # Directions that reference rows do not have at all are where a new kind of row may lie.
    made = (1 - share) * cov + (share + RIDGE) * mean * np.eye(d)
    return np.asarray(np.linalg.inv(made))
