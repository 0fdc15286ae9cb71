"""How far are confidences from the truth, on average, when few rows say so?

A row is right with a probability that is a function of its confidence, the calibration curve; the
error is the mean distance of that curve from the diagonal. The mean of |measured gap| over bins is
biased upwards, since noise never cancels in it, and so is every bootstrap of it. A smooth curve
takes the noise out, and its posterior says how far it may lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats

# As ``metrics/classes.py``, whose number gets this interval.
BINS = 15
# A fit costs by the cell: more rows than this are joined to neighbours of nearly their confidence.
CELLS = 600
BUMPS = 8
SPREADS = (0.0, 0.15, 0.3, 0.6, 1.2)
WIDE = (3.0, 1.5)
STEPS = 50
HALVINGS = 30
CLOSE = 1e-6
# The posterior of a mean of absolute values lies high, most where the error is small: 1 % below
# and 2 % above hold 2.5 % each (chosen on three real sets and ten made-up curves).
BELOW, ABOVE = 0.4, 0.8


@dataclass(frozen=True, slots=True)
class _Cells:
    """Rows by confidence, joined to at most ``CELLS``: ``confidence``, ``right`` (the share) and
    ``weight`` [cells]; ``place`` [cells] from 0 to 1, the share of rows that are less sure."""

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
    0 where a score test of α and β (χ², 2 degrees of freedom, at 1 − level, since such an interval
    can only miss on one side) cannot rule out that the confidences are right, which draws of a mean
    of absolute values never reach.

    Parameters
    ----------
    confidence, right : [n], probabilities and 0 or 1.
    effect : the design effect of grouped rows, at least 1: n rows say as much as n ÷ effect.

    Equal masses, so that ties are in the order they came in. At least one row.

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
    # Where all confidences are alike there is no slope, and its line of the matrix is 0.
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
    # The middle of each cell's ranks, so that neither end is 0 or 1.
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
    """The calibration errors of curves drawn from their posterior [draws]."""
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
    # The largest becomes 1: a log evidence of thousands of rows underflows by itself.
    weight = np.exp(np.asarray(evidence) - max(evidence))
    counts = seed.multinomial(draws, weight / weight.sum())
    member = np.minimum((cells.place * BINS).astype(np.int64), BINS - 1)
    shares = np.zeros((len(member), BINS))
    shares[np.arange(len(member)), member] = cells.weight / cells.weight.sum()
    found = []
    for count, (features, mean, curvature) in zip(counts, fits, strict=True):
        root = np.linalg.cholesky(np.linalg.inv(curvature))
        drawn = mean + seed.standard_normal((count, len(mean))) @ root.T
        gaps = _expit(offset + drawn @ features.T) - cells.confidence
        found.append(np.abs(gaps @ shares).sum(axis=1))
    return np.concatenate(found)


def _fit(
    features: Floats, cells: _Cells, offset: Floats, precision: Floats
) -> tuple[Floats, Floats, float]:
    """The mode of the coefficients, the curvature there, and the log posterior's height."""
    mean = np.zeros(features.shape[1])
    slope, curvature, height = _posterior(mean, features, cells, offset, precision)
    for _ in range(STEPS):
        step = np.linalg.solve(curvature, slope)
        # Where the confidences are nearly 1 and wrong, a whole step of Newton's overshoots for
        # ever; the posterior is concave, so that some share of it always rises.
        for _ in range(HALVINGS):
            tried = _posterior(mean + step, features, cells, offset, precision)
            if tried[2] >= height:
                break
            step = step / 2
        mean = mean + step
        slope, curvature, height = tried
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
