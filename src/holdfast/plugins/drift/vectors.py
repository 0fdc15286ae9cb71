"""Sequential test of row vectors: a classifier that learns from earlier rows how arriving rows
differ from the reference, and bets on each next row before it learns from it.

The betting form of the classifier two-sample test (Podkopaev and Ramdas, 2305.00143; Shekhar and
Ramdas, 2112.09162). The classifier is a shrunken linear discriminant (Ledoit and Wolf 2004) between
half of the reference and the rows that arrived. The other half takes no part in learning. A row's
payoff is its rank among that half (``watches``), so the mean payoff is an area under the ROC curve
whatever the classifier is. There are three forgetting rates, so that a change a thousand rows after
the start is not outweighed by the rows before it.

**A repeated row is scored by a classifier without it.** A classifier that has learned a row
recognizes it, so a stream that repeats itself (a replay of some hundred rows, say) would look
different from any reference. From a linear discriminant a row can be removed exactly, from each
memory with the weight that it has there. Rows count as the same where the signs of 64 random
directions of the whitened space are equal.
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
from holdfast.plugins.drift.watches import in_tail, rank_bound, ranks, tail_bound, tail_size
from holdfast.stats.streams.means import Detector

# Memory lengths n in rows: the weight of a row is multiplied by 1 − 1/n with each later row.
MEMORIES = (50, 200, 1000)
# The classifier is fitted every FIT_EVERY rows, and bets once it has learned from MIN_LEARNED.
FIT_EVERY, MIN_LEARNED = 16, 8
# Wider vectors are projected onto this number of random directions.
MAX_WIDTH = 512
RIDGE = 0.3
SIGNS = 64
# The number of recent rows whose marks are kept: earlier ones have no weight in the longest memory.
MAX_MARKS = 6 * MEMORIES[-1]
# A row with a smaller share of all learned weight need not be removed.
MIN_OWN_WEIGHT = 1e-4
Marks = npt.NDArray[np.uint64]
MIN_ROWS = 20
MIN_REFERENCE_ROWS = 2 * MIN_ROWS


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A reference split in two halves. ``precision`` [d, d] and ``mean`` [d] are of the half that
    the classifier learns from; ``rank_half`` [m, d] is the other half, by which rows are ranked.
    ``projection`` [width, d] is ``None`` where d is the full width. ``signs`` [d, 64] are the
    directions of the row marks."""

    precision: Floats
    mean: Floats
    rank_half: Floats
    projection: Floats | None
    signs: Floats

    @property
    def width(self) -> int:
        """The width of the vectors that ``project`` takes."""
        return int(len(self.precision) if self.projection is None else len(self.projection))

    def project(self, vectors: Floats) -> tuple[Floats, Marks]:
        """Vectors [n, width] in the space of the halves, [n, d], and the mark of each row."""
        raw = np.asarray(vectors, dtype=np.float64)
        rows = raw if self.projection is None else raw @ self.projection
        return rows, row_marks(rows - self.mean, self.signs)


@dataclass(frozen=True, slots=True, eq=False)
class DirectionClassifier:
    """One classifier for each memory: its ``directions`` [memories, d] (NaN before there is one),
    the ``centres`` [memories, d] and ``counts`` [memories] of the rows that it learned from, and
    the ``scores`` [memories, m] of the other half of the reference, also sorted
    (``sorted_scores``)."""

    directions: Floats
    centres: Floats
    counts: Floats
    scores: Floats
    sorted_scores: Floats


@dataclass(frozen=True, slots=True, eq=False)
class VectorWatch:
    """The sequential test of the vectors: ``sums`` [memories, d] and ``counts`` [memories] of
    arrived vectors, the marks of the last rows (``recent_marks``), and the last fitted
    ``classifier``. It is fitted at every ``FIT_EVERY``-th row of the stream, so that the result
    does not depend on how rows are grouped; ``rows_since_fit`` rows have come since."""

    halves: Halves
    detector: Detector
    sums: Floats
    counts: Floats
    recent_marks: Marks
    classifier: DirectionClassifier
    rows_since_fit: int = 0

    @classmethod
    def of_reference(cls, vectors: Floats, seed: int = 0) -> VectorWatch:
        """Build the test from reference ``vectors`` [m, d] (any order), m at least ``MIN_ROWS``."""
        halves = halve(vectors, seed)
        m, d = halves.rank_half.shape
        bounds = np.tile([rank_bound(m), tail_bound(m)], len(MEMORIES))
        sums, counts = np.zeros((len(MEMORIES), d)), np.zeros(len(MEMORIES))
        no_directions = np.full((len(MEMORIES), d), np.nan)
        classifier = make_classifier(halves, no_directions, no_directions, counts)
        detector = Detector.of_bounds(bounds)
        return cls(halves, detector, sums, counts, np.zeros(0, np.uint64), classifier)

    def add(self, new: DriftRows, limit: float) -> tuple[VectorWatch, int | None]:
        """The watch after more rows, up to the first row at which the evidence reaches ``limit``. A
        row that could not be read is NaN and is left out, but counts."""
        unread = np.full((len(new), self.halves.width), np.nan)
        rows, marks = self.halves.project(unread if new.vectors is None else new.vectors)
        watch, start = self, 0
        while start < len(rows):
            end = start + FIT_EVERY - watch.detector.rows % FIT_EVERY
            part, part_marks = rows[start:end], marks[start:end]
            detector, at = watch.detector.add(watch.payoffs(part, part_marks), limit)
            watch = watch._update(part, part_marks, detector)
            if at is not None:
                return watch, start + at
            start += len(part)
        return watch, None

    def payoffs(self, rows: Floats, marks: Marks) -> Floats:
        """Rank and tail payoffs [n, 2 · memories] by what was learned so far; NaN before that, and
        for a row that could not be read."""
        payoffs = np.full((len(rows), 2 * len(MEMORIES)), np.nan)
        classifier, weights = self.classifier, self._own_weights(marks)
        for k in range(len(MEMORIES)):
            scores = rows @ classifier.directions[k]
            known = np.isfinite(scores)
            payoffs[known, 2 * k] = ranks(scores[known], classifier.sorted_scores[k])
            payoffs[known, 2 * k + 1] = in_tail(scores[known], classifier.sorted_scores[k])
        repeated = np.flatnonzero(
            (weights > MIN_OWN_WEIGHT).any(axis=1) & np.isfinite(rows).all(axis=1)
        )
        if len(repeated):
            payoffs[repeated] = self._leave_one_out_payoffs(rows[repeated], weights[repeated])
        return payoffs

    def _own_weights(self, marks: Marks) -> Floats:
        """The weight of the same row in what each memory had learned [n, memories]: the sum of its
        weights over the sum of all others."""
        learned_marks = self.recent_marks[: len(self.recent_marks) - self.rows_since_fit]
        same = marks[:, None] == learned_marks
        if not same.any():
            return np.zeros((len(marks), len(MEMORIES)))
        ages = np.arange(len(learned_marks) - 1, -1, -1)
        keep = 1 - 1 / np.array(MEMORIES)
        own_weights = same @ keep[None, :] ** ages[:, None]
        return np.asarray(own_weights / np.maximum(self.classifier.counts - own_weights, 1e-9))

    def _leave_one_out_payoffs(self, rows: Floats, weights: Floats) -> Floats:
        """The payoffs [n, 2 · memories] of rows, each by classifiers that had not learned from it:
        the direction of a mean c without a row x of weight a in C is w + a ÷ (C − a) · P (c − x).
        """
        classifier, halves = self.classifier, self.halves
        payoffs = np.full((len(rows), 2 * len(MEMORIES)), np.nan)
        pulls = rows @ halves.precision
        projections, row_norms = pulls @ halves.rank_half.T, (pulls * rows).sum(axis=1)
        for k, weight in enumerate(weights.T):
            # Of counts C with own weight a, a ÷ (C − a) is ``weight``; C − a is what is left.
            enough = classifier.counts[k] / (1 + weight) >= MIN_LEARNED
            pull = halves.precision @ classifier.centres[k]
            among = classifier.scores[k] + weight[:, None] * (halves.rank_half @ pull - projections)
            scores = rows @ classifier.directions[k] + weight * (rows @ pull - row_norms)
            m, higher = among.shape[1], (among > scores[:, None]).sum(axis=1)
            level = (among == scores[:, None]).sum(axis=1)
            payoffs[enough, 2 * k] = (1 - (higher + level / 2) / m)[enough]
            payoffs[enough, 2 * k + 1] = (higher + level < tail_size(m))[enough]
        return payoffs

    def rows_since_change(self, vectors: Floats) -> int:
        """How many of the last ``vectors`` [n, d] belong to the new distribution.

        A bet could not begin before the classifier had learned the change. So the break in the mean
        rank is searched within two blocks around the begin of the best bet, with the present
        classifier of that memory. Rows of the reference, with a mean of ½, are put before the first
        vector: all vectors may be new.
        """
        rows_back = self.detector.rows - self.detector.since
        best = 2 * (self.detector.by // 2)
        rank_payoffs = self.payoffs(*self.halves.project(vectors))[:, best]
        rank_payoffs = np.where(np.isnan(rank_payoffs), 0.5, rank_payoffs)[::-1]
        rank_payoffs = np.concatenate([rank_payoffs, np.full(2 * FIT_EVERY, 0.5)])
        n, sums = len(rank_payoffs), np.cumsum(rank_payoffs)
        ends = np.arange(
            max(1, rows_back - 2 * FIT_EVERY), min(len(vectors), rows_back + 2 * FIT_EVERY) + 1
        )
        if not len(ends):
            return rows_back
        gaps = sums[ends - 1] / ends - (sums[-1] - sums[ends - 1]) / (n - ends)
        return int(ends[np.argmax(gaps * np.sqrt(ends * (n - ends)))])

    def _update(self, rows: Floats, marks: Marks, detector: Detector) -> VectorWatch:
        is_read = np.isfinite(rows).all(axis=1)
        new, sums, counts = rows[is_read], self.sums.copy(), self.counts.copy()
        for k, memory in enumerate(MEMORIES):
            keep = 1 - 1 / memory
            weights = keep ** np.arange(len(new) - 1, -1, -1)
            sums[k] = sums[k] * keep ** len(new) + weights @ new
            counts[k] = counts[k] * keep ** len(new) + weights.sum()
        recent_marks, rows_since_fit = (
            np.concatenate([self.recent_marks, marks[is_read]])[-MAX_MARKS:],
            self.rows_since_fit + len(new),
        )
        classifier = self.classifier
        if detector.rows % FIT_EVERY == 0:
            directions, centres = np.full(sums.shape, np.nan), np.full(sums.shape, np.nan)
            for memory_index in np.flatnonzero(counts >= MIN_LEARNED):
                centres[memory_index] = sums[memory_index] / counts[memory_index]
                directions[memory_index] = self.halves.precision @ (
                    centres[memory_index] - self.halves.mean
                )
            classifier, rows_since_fit = (
                make_classifier(self.halves, directions, centres, counts),
                0,
            )
        return VectorWatch(
            self.halves, detector, sums, counts, recent_marks, classifier, rows_since_fit
        )

    def to_json(self) -> dict[str, Any]:
        """The state that rows have changed; the reference is not included."""
        return {
            "detector": self.detector.to_json(),
            "sums": encode_floats(self.sums),
            "counts": self.counts.tolist(),
            "came": encode_floats(self.recent_marks.view(np.float64)),
            "late": self.rows_since_fit,
            "learned": [
                encode_floats(one) for one in (self.classifier.directions, self.classifier.centres)
            ],
            "learned_counts": self.classifier.counts.tolist(),
        }

    def with_saved_state(self, saved: Mapping[str, Any]) -> VectorWatch:
        """This watch, with the same reference, in the state that ``to_json`` stored."""
        directions, centres = (
            decode_floats(one).reshape(self.sums.shape) for one in saved["learned"]
        )
        counts = np.array(saved["learned_counts"], np.float64)
        return VectorWatch(
            self.halves,
            Detector.from_json(saved["detector"]),
            decode_floats(saved["sums"]).reshape(self.sums.shape),
            np.array(saved["counts"], np.float64),
            decode_floats(saved["came"]).view(np.uint64),
            make_classifier(self.halves, directions, centres, counts),
            int(saved["late"]),
        )


def make_classifier(
    halves: Halves, directions: Floats, centres: Floats, counts: Floats
) -> DirectionClassifier:
    """A classifier with the scores of the reference's rank half."""
    scores = directions @ halves.rank_half.T
    return DirectionClassifier(directions, centres, counts, scores, np.sort(scores, axis=1))


def row_marks(gaps: Floats, signs: Floats) -> Marks:
    """A 64-bit mark for each vector [n, d], centred: the signs of its 64 projections [d, 64]."""
    bits = np.nan_to_num(gaps) @ signs > 0
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def encode_floats(values: Floats, dtype: str = "<f8") -> str:
    """Encode numbers as base64 text for JSON, in order."""
    return base64.b64encode(np.ascontiguousarray(values).astype(dtype).tobytes()).decode()


def decode_floats(text: str, dtype: str = "<f8") -> Floats:
    """Decode the numbers [n] that ``encode_floats`` wrote, as float64."""
    return np.frombuffer(base64.b64decode(text), dtype).astype(np.float64)


def halve(vectors: Floats, seed: int) -> Halves:
    """Split reference vectors [m, d] into two random halves by the seed."""
    rows, projection = np.asarray(vectors, dtype=np.float64), None
    if rows.shape[1] > MAX_WIDTH:
        random_directions = generator(seed, "drift directions").standard_normal(
            (rows.shape[1], MAX_WIDTH)
        )
        projection = random_directions / np.sqrt(MAX_WIDTH)
        rows = rows @ projection
    order = generator(seed, "halves of a reference").permutation(len(rows))
    fit_half, rank_half = rows[order[: len(order) // 2]], rows[order[len(order) // 2 :]]
    precision, mean = shrunken_precision(fit_half), fit_half.mean(axis=0)
    random_directions = generator(seed, "marks of rows").standard_normal((rows.shape[1], SIGNS))
    # Rows in one narrow cone have similar directions until they are whitened.
    signs = np.linalg.cholesky(precision) @ random_directions
    return Halves(precision, mean, rank_half, projection, signs)


def shrunken_precision(rows: Floats) -> Floats:
    """The inverse [d, d] of the covariance of rows [n, d], shrunken towards a multiple of the
    identity with the optimal intensity of Ledoit and Wolf (2004), plus ``RIDGE`` times its mean."""
    n, d = rows.shape
    gaps = rows - rows.mean(axis=0)
    cov = gaps.T @ gaps / n
    mean = float(np.trace(cov)) / d
    if mean <= 0:
        return np.eye(d)
    distance = float(((cov - mean * np.eye(d)) ** 2).sum())
    noise = (float(((gaps**2).sum(axis=1) ** 2).sum()) / n - float((cov**2).sum())) / n
    share = min(1.0, max(0.0, noise / distance)) if distance > 0 else 1.0
    # A new kind of row may lie in a direction in which the reference rows do not vary at all.
    shrunken = (1 - share) * cov + (share + RIDGE) * mean * np.eye(d)
    return np.asarray(np.linalg.inv(shrunken))
