"""Calibration: the temperature that corrects logits, the loss after it, and the calibration error
with its interval.

Dividing logits by T changes only the confidence (Guo et al., 1706.04599). The loss after the best T
measures the predictions apart from their confidence: *refinement* (Berta et al., 2501.19195).

A row is correct with a probability that is a function of its confidence, the calibration curve; the
error is the mean distance of that curve from the diagonal. The mean of |measured gap| over bins is
biased upwards, since noise never cancels in it, and so is every bootstrap of it. A smooth curve
removes the noise, and its posterior shows how far the error may lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.stats.stacking import held_out_losses

COLDEST = 0.01
HOTTEST = 100.0


def best_temperature(
    logits: Floats, labels: Ints, *, smoothing: float = 0.0
) -> tuple[float, float]:
    """The temperature that minimises the mean cross-entropy of ``logits / T``, and that loss.

    With b = 1/T, f(b) = mean(log Σ_c exp(b z_c) − b z_y) is convex in b; f′ = mean(E_p z − z_y)
    and f″ = mean(Var_p z). Newton's step is used if it stays in the bracket, else bisection.

    Parameters
    ----------
    logits : [n, classes]; labels : [n], class indices.
    smoothing : number of pseudo-rows whose label is uniform over the classes; 1 keeps the
        temperature of a perfectly separated set moderate. It affects only T: the loss returned
        is always the plain one at that T. 0 is the pure optimum, for measuring refinement;
        use 1 for a temperature that will be saved.

    Returns
    -------
    (T, loss in nats). T lies in [``COLDEST``, ``HOTTEST``] = [0.01, 100]: the bound, if the rows
    are perfectly separated (T → 0) or the logits are uninformative or misleading (T → ∞). Equal
    logits in every row, whose loss is the same at any T: 1. No rows, or a logit that is not finite:
    (1, NaN).
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not scores.size or not np.isfinite(scores).all():
        return 1.0, math.nan
    # Exponentials of large logits overflow; shifting a row changes no probability.
    scores = scores - scores.max(axis=1, keepdims=True)
    if not scores.any():
        return 1.0, math.log(scores.shape[1])
    label_logit = float(np.mean(scores[np.arange(len(scores)), labels]))
    # A pseudo-row's expected score is the mean over its classes, so no row needs to be added.
    share = smoothing / (len(scores) + smoothing)
    target = (1 - share) * label_logit + share * float(scores.mean())
    # The b where E_p z = target; E_p z rises with b.
    low, high, inverse = 1.0 / HOTTEST, 1.0 / COLDEST, 1.0
    # Bisection only, which halves the bracket's logarithm, reaches the tolerance in 37 rounds.
    for _ in range(100):
        weights = np.exp(scores * inverse)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * scores).sum(axis=1)
        variance = (weights * scores**2).sum(axis=1) - mean**2
        slope, curvature = float(mean.mean()) - target, float(variance.mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else math.inf
        # A geometric mean, since temperatures differ by factors.
        next_inverse = step if low < step < high else math.sqrt(low * high)
        if abs(next_inverse - inverse) <= 1e-10 * inverse:
            break
        inverse = next_inverse
    return 1.0 / inverse, float(np.mean(losses_at(scores, labels, 1.0 / inverse)))


def losses_at(logits: Floats, labels: Ints, temperature: float) -> Floats:
    """Cross-entropy in nats of each row at a temperature, [n]; logits [n, classes]."""
    scores = np.asarray(logits, dtype=np.float64) / temperature
    scores = scores - scores.max(axis=1, keepdims=True)
    label_logits = scores[np.arange(len(scores)), labels]
    return np.asarray(np.log(np.exp(scores).sum(axis=1)) - label_logits)


def logit_spread(logits: Floats) -> float:
    """How far apart the ``logits`` [n, classes] of a row are: their standard deviation, root mean
    square over the rows. At least one row."""
    return float(np.sqrt(np.asarray(logits, dtype=np.float64).var(axis=1).mean()))


def cross_fitted_losses(
    logits: Floats,
    labels: Ints,
    *,
    seed: np.random.Generator,
    groups: Ints | None = None,
    smoothing: float = 0.0,
) -> Floats:
    """The loss of each row [n] at the temperature fitted on the *other* folds, five of them.

    An unbiased number on the calibration rows, where ``best_temperature`` is optimistic by about
    1/2n nats. ``groups`` [n] (whole numbers from 0) stay within one fold. Fewer than two rows or
    groups: the raw losses, because there is nothing to fit on.
    """
    # Whole groups in one fold, because a row of a group gives information on the others.
    unit = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if unit.max(initial=-1) < 1:
        return losses_at(logits, labels, 1.0)

    def fit(rows: Ints) -> Floats:
        return np.array(best_temperature(logits[rows], labels[rows], smoothing=smoothing)[:1])

    def losses(temperature: Floats, rows: Ints) -> Floats:
        return losses_at(logits[rows], labels[rows], float(temperature[0]))

    return held_out_losses(fit, losses, unit, seed)


def recover_labels(
    logits: Floats, losses: Floats, correct: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """The labels [n] that explain ``losses`` [n] as the cross-entropy of ``logits`` [n, classes].

    The class whose loss is nearest; if two tie, their losses are equal at every temperature. Which
    rows were predicted ``correct`` [n], by the first highest logit, decides between nearly equal
    logits.
    """
    scores = np.asarray(logits, dtype=np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    each = np.log(np.exp(scores).sum(axis=1, keepdims=True)) - scores
    distance = np.abs(each - np.asarray(losses)[:, None])
    if correct is not None:
        is_predicted = np.arange(scores.shape[1]) == np.asarray(logits).argmax(axis=1)[:, None]
        distance[is_predicted != np.asarray(correct)[:, None]] = np.inf
    return np.asarray(distance.argmin(axis=1), dtype=np.int64)


# Equal to ``metrics/classes.py``, whose number gets this interval.
BINS = 15
# A fit costs per cell: above this number, rows are joined with neighbours of similar confidence.
CELLS = 600
BUMPS = 8
SPREADS = (0.0, 0.15, 0.3, 0.6, 1.2)
WIDE = (3.0, 1.5)
STEPS = 50
HALVINGS = 30
CLOSE = 1e-6
# The posterior of a mean of absolute values is too high, most where the error is small: 1 % below
# and 2 % above hold 2.5 % each (chosen on three real sets and ten synthetic curves).
BELOW, ABOVE = 0.4, 0.8


@dataclass(frozen=True, slots=True)
class _Cells:
    """Rows by confidence, joined to at most ``CELLS``: ``confidence``, ``right`` (the share) and
    ``weight`` [cells]; ``place`` [cells] from 0 to 1, the share of rows with lower confidence."""

    confidence: Floats
    right: Floats
    weight: Floats
    place: Floats


def calibration_error_interval(
    confidence: Floats,
    right: Floats,
    *,
    seed: np.random.Generator,
    level: float = 0.95,
    effect: float = 1.0,
    draws: int = 1000,
) -> tuple[float, float]:
    """An interval of the calibration error Σ_b share_b |P(right | b) − mean confidence_b| over 15
    bins of equal mass.

    The curve is logit P(right) = logit c + α + β (logit c − mean) + Σ_k δ_k b_k(rank of c), with
    α ~ N(0, 3²), β ~ N(0, 1.5²) (a temperature is a β) and eight Gaussian bumps along the ranks
    whose heights are N(0, τ²), τ weighted by its evidence on a grid; each fit by Laplace's
    approximation. The limits are quantiles of the error over draws of the curve. The lower one is
    0 if a score test of α and β (χ², 2 degrees of freedom, at 1 − level, since such an interval
    can only miss on one side) cannot reject that the confidences are correct, because draws of a
    mean of absolute values never reach 0.

    Parameters
    ----------
    confidence, right : [n], probabilities and 0 or 1.
    effect : the design effect of grouped rows, at least 1: n rows count as n ÷ effect.

    Bins have equal mass, so ties keep the order in which they came. At least one row.

    >>> rng = np.random.default_rng(0)
    >>> sure = rng.uniform(0.5, 1, 2000)
    >>> calibration_error_interval(sure, (rng.random(2000) < sure) * 1.0, seed=rng)[0]
    0.0
    """
    from scipy.special import chdtrc

    cells = _cells(np.asarray(confidence, np.float64), np.asarray(right, np.float64), effect)
    # A confidence of exactly 0 or 1 has no logit.
    chance = np.clip(cells.confidence, 1e-5, 1 - 1e-5)
    offset = np.asarray(np.log(chance) - np.log1p(-chance))
    slope = offset - np.average(offset, weights=cells.weight)
    base = np.column_stack([np.ones_like(slope), slope])
    drawn = _errors(cells, offset, base, seed, draws)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [BELOW * tail, 1 - ABOVE * tail])
    score = base.T @ (cells.weight * (cells.right - cells.confidence))
    spread = cells.weight * cells.confidence * (1 - cells.confidence)
    # If all confidences are equal there is no slope, and its row of the matrix is 0.
    variance = (base.T * spread) @ base + 1e-9 * np.eye(2)
    statistic = float(score @ np.linalg.solve(variance, score))
    may_be_right = float(chdtrc(2, statistic)) > 1 - level
    return (0.0 if may_be_right else float(low)), float(high)


def _cells(confidence: Floats, right: Floats, effect: float) -> _Cells:
    order = np.argsort(confidence, kind="stable")
    n = len(order)
    count = min(n, CELLS)
    cell = np.arange(n) * count // n
    size = np.bincount(cell, minlength=count).astype(np.float64)
    # The middle of each cell's ranks, so that no end is 0 or 1.
    place = (np.cumsum(size) - 0.5 * size) / n
    return _Cells(
        np.bincount(cell, confidence[order], count) / size,
        np.bincount(cell, right[order], count) / size,
        size / effect,
        place,
    )


def _errors(
    cells: _Cells, offset: Floats, base: Floats, seed: np.random.Generator, draws: int
) -> Floats:
    """The calibration errors [draws] of curves drawn from their posterior."""
    centres = (np.arange(BUMPS) + 0.5) / BUMPS
    bumps = np.exp(-0.5 * ((cells.place[:, None] - centres) * BUMPS) ** 2)
    fits, evidence = [], []
    for spread in SPREADS:
        features = base if spread == 0 else np.column_stack([base, bumps])
        scales = [*WIDE, *([spread] * (features.shape[1] - len(WIDE)))]
        precision = 1 / np.asarray(scales) ** 2
        mean, curvature, height = _fit(features, cells, offset, precision)
        fits.append((features, mean, curvature))
        # Laplace's evidence. The powers of 2π of the prior and of the posterior cancel.
        evidence.append(
            height + 0.5 * np.log(precision).sum() - 0.5 * np.linalg.slogdet(curvature)[1]
        )
    # The largest becomes 1, because a log evidence of thousands of rows would underflow.
    weight = np.exp(np.asarray(evidence) - max(evidence))
    counts = seed.multinomial(draws, weight / weight.sum())
    member = np.minimum((cells.place * BINS).astype(np.int64), BINS - 1)
    shares = np.zeros((len(member), BINS))
    shares[np.arange(len(member)), member] = cells.weight / cells.weight.sum()
    errors_found = []
    for count, (features, mean, curvature) in zip(counts, fits, strict=True):
        root = np.linalg.cholesky(np.linalg.inv(curvature))
        drawn = mean + seed.standard_normal((count, len(mean))) @ root.T
        gaps = _expit(offset + drawn @ features.T) - cells.confidence
        errors_found.append(np.abs(gaps @ shares).sum(axis=1))
    return np.concatenate(errors_found)


def _fit(
    features: Floats, cells: _Cells, offset: Floats, precision: Floats
) -> tuple[Floats, Floats, float]:
    """The mode of the coefficients, the curvature at it, and the log posterior's height."""
    mean = np.zeros(features.shape[1])
    slope, curvature, height = _posterior(mean, features, cells, offset, precision)
    for _ in range(STEPS):
        step = np.linalg.solve(curvature, slope)
        # If the confidences are nearly 1 and wrong, a full Newton step overshoots repeatedly; the
        # posterior is concave, so some share of the step always increases it.
        for _ in range(HALVINGS):
            candidate = _posterior(mean + step, features, cells, offset, precision)
            if candidate[2] >= height:
                break
            step = step / 2
        mean = mean + step
        slope, curvature, height = candidate
        if np.abs(step).max() < CLOSE:
            break
    return mean, curvature, height


def _posterior(
    mean: Floats, features: Floats, cells: _Cells, offset: Floats, precision: Floats
) -> tuple[Floats, Floats, float]:
    line = offset + features @ mean
    chance = _expit(line)
    slope = features.T @ (cells.weight * (cells.right - chance)) - precision * mean
    spread = cells.weight * chance * (1 - chance)
    curvature = (features.T * spread) @ features + np.diag(precision)
    fit = float(np.sum(cells.weight * (cells.right * line - np.logaddexp(0, line))))
    return slope, curvature, fit - 0.5 * float(np.sum(precision * mean**2))


def _expit(line: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(line))
