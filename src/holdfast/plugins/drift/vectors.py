"""Have the vectors of rows moved? A classifier that learns, from rows that came before, which way
arriving ones differ from the reference, and bets on each next row before it learns from it.

The betting form of the classifier two-sample test (Podkopaev and Ramdas, 2305.00143; Shekhar and
Ramdas, 2112.09162). The classifier is a shrunken linear discriminant (Ledoit and Wolf 2004) between
half of the reference and the rows that arrived; the other half takes no part in learning, and a
row's payoff is its rank among that half (``watches``), so its mean is an area under the ROC curve
whatever the classifier is. Rows are forgotten at three speeds: a change a thousand rows after the
start is not outvoted by what came before it.

**A row that came before is judged by a classifier without it.** What has learned where a row lies
finds it there again, so that a stream that repeats itself (a replay of some hundred rows, say)
would be told from any reference. Of a linear discriminant a row is taken back exactly, from each
memory with the weight that it has there. Rows are the same where the signs of 64 random directions
of the whitened space are.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.core.seeds import generator
from holdfast.plugins.drift.rows import DriftRows
from holdfast.plugins.drift.watches import in_tail, rank_bound, ranks, tail_bound, tail_place
from holdfast.stats.streams.means import Detector

# Rows, of which so many count: the weight of a row falls by 1 − 1/n with each later one.
MEMORIES = (50, 200, 1000)
# The classifier learns after so many rows, and bets from so many on.
BLOCK, FIRST = 16, 8
# Wider vectors are projected at random onto so many directions.
WIDEST = 512
RIDGE = 0.3
SIGNS = 64
# The last rows whose marks are kept: earlier ones weigh nothing in the longest memory.
KEPT = 6 * MEMORIES[-1]
# What a row weighs of all that was learned, below which it need not be taken back.
LIGHT = 1e-4
Marks = npt.NDArray[np.uint64]
FEWEST = 20
LEAST_REFERENCE = 2 * FEWEST


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A reference cut in two: ``precision`` [d, d] and ``mean`` [d] of the half that is learned
    from, ``held`` [m, d] the other; ``onto`` [width, d] a projection, ``None`` where d is all;
    ``signs`` [d, 64] what marks are made by."""

    precision: Floats
    mean: Floats
    held: Floats
    onto: Floats | None
    signs: Floats

    @property
    def width(self) -> int:
        """Of the vectors that ``read`` takes."""
        return int(len(self.precision) if self.onto is None else len(self.onto))

    def read(self, vectors: Floats) -> tuple[Floats, Marks]:
        """Vectors [n, width] as the halves are, [n, d], and the mark of each."""
        given = np.asarray(vectors, dtype=np.float64)
        rows = given if self.onto is None else given @ self.onto
        return rows, marks_of(rows - self.mean, self.signs)


@dataclass(frozen=True, slots=True, eq=False)
class DirectionClassifier:
    """A classifier a memory: ``ways`` [memories, d] that it looks (NaN before there is one), the
    ``centres`` [memories, d] and ``counts`` [memories] of what it learned from, and the ``scores``
    [memories, m] of the held half, as they are and sorted (``among``)."""

    ways: Floats
    centres: Floats
    counts: Floats
    scores: Floats
    among: Floats


@dataclass(frozen=True, slots=True, eq=False)
class VectorWatch:
    """The bets so far: ``sums`` [memories, d] and ``counts`` [memories] of arrived vectors, the
    marks ``came`` of the last of them, and the classifiers that were ``learned`` of them last. They
    learn at every ``BLOCK``-th row of the stream, so that it does not matter in which parts rows
    are added; ``late`` rows have come since."""

    halves: Halves
    detector: Detector
    sums: Floats
    counts: Floats
    came: Marks
    learned: DirectionClassifier
    late: int = 0

    @classmethod
    def of_reference(cls, vectors: Floats, seed: int = 0) -> VectorWatch:
        """Of reference ``vectors`` [m, d], m at least ``FEWEST``, whatever their order."""
        halves = halve(vectors, seed)
        m, d = halves.held.shape
        bounds = np.tile([rank_bound(m), tail_bound(m)], len(MEMORIES))
        sums, counts = np.zeros((len(MEMORIES), d)), np.zeros(len(MEMORIES))
        none = np.full((len(MEMORIES), d), np.nan)
        learned = learned_of(halves, none, none, counts)
        detector = Detector.of_bounds(bounds)
        return cls(halves, detector, sums, counts, np.zeros(0, np.uint64), learned)

    def add(self, new: DriftRows, limit: float) -> tuple[VectorWatch, int | None]:
        """After more rows, up to the first at which the evidence reaches ``limit``. A row of which
        nothing was read is NaN, and is left out, but counts."""
        unread = np.full((len(new), self.halves.width), np.nan)
        rows, marks = self.halves.read(unread if new.vectors is None else new.vectors)
        made, start = self, 0
        while start < len(rows):
            end = start + BLOCK - made.detector.rows % BLOCK
            part, own = rows[start:end], marks[start:end]
            detector, at = made.detector.add(made.payoffs(part, own), limit)
            made = made._joined(part, own, detector)
            if at is not None:
                return made, start + at
            start += len(part)
        return made, None

    def payoffs(self, rows: Floats, marks: Marks) -> Floats:
        """Rank and tail payoffs [n, 2 · memories] by what was learned so far; NaN before that, and
        for a row that was not read."""
        found = np.full((len(rows), 2 * len(MEMORIES)), np.nan)
        learned, weights = self.learned, self._weights(marks)
        for k in range(len(MEMORIES)):
            scores = rows @ learned.ways[k]
            known = np.isfinite(scores)
            found[known, 2 * k] = ranks(scores[known], learned.among[k])
            found[known, 2 * k + 1] = in_tail(scores[known], learned.among[k])
        again = np.flatnonzero((weights > LIGHT).any(axis=1) & np.isfinite(rows).all(axis=1))
        if len(again):
            found[again] = self._without(rows[again], weights[again])
        return found

    def _weights(self, marks: Marks) -> Floats:
        """How much of what each memory had learned is of the same row [n, memories]: the sum of its
        weights over the sum of all others."""
        seen = self.came[: len(self.came) - self.late]
        same = marks[:, None] == seen
        if not same.any():
            return np.zeros((len(marks), len(MEMORIES)))
        ages = np.arange(len(seen) - 1, -1, -1)
        keep = 1 - 1 / np.array(MEMORIES)
        own = same @ keep[None, :] ** ages[:, None]
        return np.asarray(own / np.maximum(self.learned.counts - own, 1e-9))

    def _without(self, rows: Floats, weights: Floats) -> Floats:
        """The payoffs [n, 2 · memories] of rows, each by classifiers that had not learned from it:
        the way of a mean c without a row x of weight a in C is w + a ÷ (C − a) · P (c − x)."""
        learned, halves = self.learned, self.halves
        found = np.full((len(rows), 2 * len(MEMORIES)), np.nan)
        pulls = rows @ halves.precision
        held, own = pulls @ halves.held.T, (pulls * rows).sum(axis=1)
        for k, weight in enumerate(weights.T):
            # Of counts C with own weight a, a ÷ (C − a) is ``weight``; C − a is what is left.
            left = learned.counts[k] / (1 + weight) >= FIRST
            pull = halves.precision @ learned.centres[k]
            among = learned.scores[k] + weight[:, None] * (halves.held @ pull - held)
            scores = rows @ learned.ways[k] + weight * (rows @ pull - own)
            m, higher = among.shape[1], (among > scores[:, None]).sum(axis=1)
            level = (among == scores[:, None]).sum(axis=1)
            found[left, 2 * k] = (1 - (higher + level / 2) / m)[left]
            found[left, 2 * k + 1] = (higher + level < tail_place(m))[left]
        return found

    def dated(self, vectors: Floats) -> int:
        """How many of the last ``vectors`` [n, d] are of the new kind: a bet could not begin before
        the classifier had learned what is new, so the break in the mean of the ranks, by the
        classifier that won most as it is now, is sought within two blocks around its begin. Before
        the first of them stand rows of the reference, of which the mean is ½: all may be new."""
        back = self.detector.rows - self.detector.since
        best = 2 * (self.detector.by // 2)
        place = self.payoffs(*self.halves.read(vectors))[:, best]
        place = np.where(np.isnan(place), 0.5, place)[::-1]
        place = np.concatenate([place, np.full(2 * BLOCK, 0.5)])
        n, sums = len(place), np.cumsum(place)
        ends = np.arange(max(1, back - 2 * BLOCK), min(len(vectors), back + 2 * BLOCK) + 1)
        if not len(ends):
            return back
        gaps = sums[ends - 1] / ends - (sums[-1] - sums[ends - 1]) / (n - ends)
        return int(ends[np.argmax(gaps * np.sqrt(ends * (n - ends)))])

    def _joined(self, rows: Floats, marks: Marks, detector: Detector) -> VectorWatch:
        read = np.isfinite(rows).all(axis=1)
        new, sums, counts = rows[read], self.sums.copy(), self.counts.copy()
        for k, memory in enumerate(MEMORIES):
            keep = 1 - 1 / memory
            weights = keep ** np.arange(len(new) - 1, -1, -1)
            sums[k] = sums[k] * keep ** len(new) + weights @ new
            counts[k] = counts[k] * keep ** len(new) + weights.sum()
        came, late = np.concatenate([self.came, marks[read]])[-KEPT:], self.late + len(new)
        learned = self.learned
        if detector.rows % BLOCK == 0:
            ways, centres = np.full(sums.shape, np.nan), np.full(sums.shape, np.nan)
            for enough in np.flatnonzero(counts >= FIRST):
                centres[enough] = sums[enough] / counts[enough]
                ways[enough] = self.halves.precision @ (centres[enough] - self.halves.mean)
            learned, late = learned_of(self.halves, ways, centres, counts), 0
        return VectorWatch(self.halves, detector, sums, counts, came, learned, late)

    def to_json(self) -> dict[str, Any]:
        """What rows brought; the reference is not in it."""
        return {
            "detector": self.detector.to_json(),
            "sums": packed(self.sums),
            "counts": self.counts.tolist(),
            "came": packed(self.came.view(np.float64)),
            "late": self.late,
            "learned": [packed(one) for one in (self.learned.ways, self.learned.centres)],
            "learned_counts": self.learned.counts.tolist(),
        }

    def restored(self, said: Mapping[str, Any]) -> VectorWatch:
        """This watch, of the same reference, with what ``to_json`` wrote down."""
        ways, centres = (unpacked(one).reshape(self.sums.shape) for one in said["learned"])
        counts = np.array(said["learned_counts"], np.float64)
        return VectorWatch(
            self.halves,
            Detector.from_json(said["detector"]),
            unpacked(said["sums"]).reshape(self.sums.shape),
            np.array(said["counts"], np.float64),
            unpacked(said["came"]).view(np.uint64),
            learned_of(self.halves, ways, centres, counts),
            int(said["late"]),
        )


def learned_of(
    halves: Halves, ways: Floats, centres: Floats, counts: Floats
) -> DirectionClassifier:
    """With what the held half says of them."""
    scores = ways @ halves.held.T
    return DirectionClassifier(ways, centres, counts, scores, np.sort(scores, axis=1))


def marks_of(gaps: Floats, signs: Floats) -> Marks:
    """A number for each vector [n, d] from the centre: the signs of its 64 directions [d, 64]."""
    bits = np.nan_to_num(gaps) @ signs > 0
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


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
    precision, mean = precision_of(learn), learn.mean(axis=0)
    drawn = generator(seed, "marks of rows").standard_normal((given.shape[1], SIGNS))
    # Where rows lie in one narrow cone their directions are alike until they are whitened.
    signs = np.linalg.cholesky(precision) @ drawn
    return Halves(precision, mean, held, onto, signs)


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
