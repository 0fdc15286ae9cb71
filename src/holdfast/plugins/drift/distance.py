"""How far new rows are from the reference: how well a classifier tells the two apart, how much
each reference row counts among the new, and which new rows lie where the reference has none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.probe import stratified_folds
from holdfast.plugins.drift.accuracy import edge_place, fitted, logit
from holdfast.plugins.drift.vectors import precision_of
from holdfast.stats.auc import delong
from holdfast.stats.intervals import normal_quantile

FOLDS = 5
FEWEST = 20
# Vectors of length 1 that are no further apart are of one row, to the digits that are kept.
SAME = 2e-3
# A row counts at most so many times.
MOST = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """``area`` is the chance that a new row looks newer than a reference row (0.5: not told apart),
    ``share`` the share of new rows by which the two differ (a lower estimate of their total
    variation); ``old_scores`` [m] and ``scores`` [n] of the rows, higher where newer; ``weights``
    [m] of the reference rows, mean 1; ``outside`` [n], whether a new row lies where the reference
    has none."""

    area: Estimate
    share: Estimate
    old_scores: Floats
    scores: Floats
    weights: Floats
    outside: Ints


def apart(held: Floats, new: Floats) -> Apart | None:
    """Reference vectors ``held`` [m, d] and ``new`` ones [n, d]; ``None`` below 20 of either.

    Each row is scored by a linear discriminant that was made without it (5 folds).
    """
    m, n = len(held), len(new)
    if min(m, n) < FEWEST:
        return None
    x = np.concatenate([held, new]).astype(np.float64)
    y = np.repeat([0, 1], [m, n])
    folds = stratified_folds(y, FOLDS, 0)
    # A row that is in both sets would be told by its copy in the other, the wrong way round.
    nearest, distance = _nearest(held, new)
    same = distance < SAME
    folds[m:][same] = folds[:m][nearest[same]]
    scores = np.zeros(m + n)
    for fold in range(FOLDS):
        inside = folds != fold
        old, late = x[inside & (y == 0)], x[inside & (y == 1)]
        then, now = old.mean(axis=0), late.mean(axis=0)
        way = precision_of(np.concatenate([old - then, late - now])) @ (now - then)
        scores[folds == fold] = (x[folds == fold] - (then + now) / 2) @ way
    before, after = scores[:m], scores[m:]
    area, share = rank_area(before, after), _share(before, after)
    return Apart(area, share, before, after, _weights(scores, y), outside(held, new))


def rank_area(old: Floats, new: Floats, level: float = 0.95) -> Estimate:
    """The area under the ROC curve of cross-fitted scores. Its interval is DeLong's, √2 as wide:
    scores of different folds hang together by the rows that their fits share, as in
    ``quality.two_samples``."""
    labels = np.repeat([False, True], [len(old), len(new)])
    found = delong(labels, np.concatenate([old, new]), level)
    value, error = found.value, found.error
    if not error > 0:
        return Estimate(value, found.low, found.high, level)
    at = float(logit(np.array(value)))
    half = np.sqrt(2) * normal_quantile(level) * error / max(value * (1 - value), 1e-9)
    ends = 1 / (1 + np.exp(-np.array([at - half, at + half])))
    return Estimate(value, float(ends[0]), float(ends[1]), level)


def _share(old: Floats, new: Floats) -> Estimate:
    """Of the new rows that the classifier calls new, less those of the old that it does."""
    hit, false = float((new > 0).mean()), float((old > 0).mean())
    error = np.sqrt(2 * (hit * (1 - hit) / len(new) + false * (1 - false) / len(old)))
    half, gap = normal_quantile(0.95) * float(error), hit - false
    return Estimate(max(0.0, gap), max(0.0, gap - half), min(1.0, max(gap + half, 0.0)))


def _weights(scores: Floats, y: Ints) -> Floats:
    """How much likelier each reference row [m] is among the new: the odds of a logistic curve of
    the cross-fitted scores, at most ``MOST``, of mean 1."""
    spread = max(float(scores.std()), 1e-12)
    scaled = (scores - scores.mean()) / spread
    held = y == 0
    line = fitted(scaled, y.astype(np.float64), np.ones((1, len(y))))[0]
    odds = np.exp(np.clip(line[0] + line[1] * scaled[held], -30, 30))
    odds = np.minimum(odds * held.sum() / max(1, len(y) - held.sum()), MOST)
    return np.asarray(odds / max(float(odds.mean()), 1e-300))


def outside(held: Floats, new: Floats, seed: int = 0) -> Ints:
    """Which new rows [n] (0 or 1) are further from their nearest of one half of the reference than
    99 % of the other half are (all, of fewer than 100): by cosine, or by distance where vectors are
    not of one length."""
    order = generator(seed, "support").permutation(len(held))
    base, rest = held[order[: len(order) // 2]], held[order[len(order) // 2 :]]
    edge = float(np.sort(_nearest(base, rest)[1])[edge_place(len(rest))])
    return (_nearest(base, new)[1] > edge).astype(np.int64)


def _nearest(base: Floats, rows: Floats) -> tuple[Ints, Floats]:
    """The nearest of ``base`` to each row [n], and how far it is."""
    wide, given = base.astype(np.float64), rows.astype(np.float64)
    squares = (wide**2).sum(axis=1)[None] + (given**2).sum(axis=1)[:, None]
    squares = np.maximum(squares - 2 * given @ wide.T, 0)
    at = squares.argmin(axis=1)
    return at, np.sqrt(squares[np.arange(len(at)), at])
