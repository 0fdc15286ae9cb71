"""The score that models will have once they are fine-tuned, from two kinds of evidence on the same
rows: a probe of each frozen model, and a short fine-tune of a few.

The true scores s [models] are normal around what the probes say, and the short fine-tunes
y [those tried] around them:

    s ~ N(m, A Cov(P) Aᵀ ÷ n + τ² I + κ² 1 1ᵀ),   m = 1 − ρ (1 − p̄) + υ (p − p̄) + ε (e − ē)
    y ~ N(s − b, Cov(Y) ÷ v + σ² I)

with p the means of the probes' scores P [models, n rows], e the log evidence of each model's
features in nats a row (``models/transferability.py``), p̄ and ē their means over the models, A the
matrix of m in p, and Y [tried, v rows] the scores of the short fine-tunes: the covariances over
rows make it a paired comparison, in which what all models find hard cancels. ρ says how much of a
probe's error fine-tuning leaves, υ and ε how models differ by their probe and by their evidence, τ
how far a model strays from that, κ how far all models of one set do together, b and σ what a short
fine-tune lacks of a whole one. Without evidence m = 1 − ρ (1 − p). The posterior is normal (closed
form), and so are differences of two models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.stats.intervals import normal_quantile

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """ρ (``left``), τ (``stray``), κ (``together``), b (``lacks``) and σ (``short``) of the above,
    in units of the score, υ (``by_probe``) and, in scores a nat, ε (``by_evidence``). ``best`` is
    the score that nothing exceeds."""

    left: float
    stray: float
    together: float
    lacks: float
    short: float
    by_probe: float = 0.5
    by_evidence: float = 1.0
    best: float = 1.0


@dataclass(frozen=True, slots=True)
class Predicted:
    """Means [models] and covariance [models, models] of the fine-tuned scores."""

    mean: Array
    covariance: Array

    def interval(self, model: int, level: float = 0.95) -> tuple[float, float]:
        """Limits of one model's score."""
        half = normal_quantile(level) * math.sqrt(float(self.covariance[model, model]))
        return float(self.mean[model]) - half, float(self.mean[model]) + half

    def difference(self, one: int, other: int, level: float = 0.95) -> tuple[float, float, float]:
        """Score of ``one`` less that of ``other``, with its limits."""
        along = np.zeros(len(self.mean))
        along[one], along[other] = 1.0, along[other] - 1.0
        gap = float(along @ self.mean)
        half = normal_quantile(level) * math.sqrt(max(float(along @ self.covariance @ along), 0.0))
        return gap, gap - half, gap + half


def predict_scores(
    probes: Floats,
    calibration: Calibration,
    tried: Sequence[int] = (),
    short: Floats | None = None,
    evidence: Floats | None = None,
) -> Predicted:
    """The fine-tuned scores of models.

    Parameters
    ----------
    probes : [models, n] scores of the same rows, NaN for a row that a model does not read (it
        counts in no model's).
    tried : the models that were fine-tuned for a short while, ``short`` [tried, v] their scores of
        the same validation rows.
    evidence : [models] nats a row, of the same rows; ``None`` where it was not calibrated.
    """
    rows = np.asarray(probes, np.float64)
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if not rows.shape[1]:
        raise Defect("a predicted score", "needs a row that every model was asked about")
    models, found = len(rows), rows.mean(axis=1)
    across = np.eye(models) - 1 / models
    along = calibration.left * np.eye(models)
    moved = np.zeros(models)
    if evidence is not None:
        along = calibration.left / models + calibration.by_probe * across
        moved = calibration.by_evidence * (across @ np.asarray(evidence, np.float64))
    mean = calibration.best * (1 - calibration.left) + along @ found + moved
    covariance = (
        along @ _of_means(rows) @ along.T
        + calibration.stray**2 * np.eye(models)
        + calibration.together**2
    )
    if short is None or not len(tried):
        return Predicted(mean, covariance)
    seen = np.asarray(short, np.float64)
    pick = np.eye(models)[list(tried)]
    noise = _of_means(seen) + calibration.short**2 * np.eye(len(tried))
    gain = covariance @ pick.T @ np.linalg.inv(pick @ covariance @ pick.T + noise)
    surprise = seen.mean(axis=1) + calibration.lacks - pick @ mean
    return Predicted(mean + gain @ surprise, covariance - gain @ pick @ covariance)


def _of_means(rows: Array) -> Array:
    """The covariance of the means of these rows [models, n]; of one row it is not known, and as
    large as that of a coin."""
    models, n = rows.shape
    if n < 2:
        return 0.25 * np.eye(models)
    found = np.cov(rows).reshape(models, models) / n
    # Rows that are all right are no proof that no row is wrong: a share of (0.5 of n) may be.
    least = 0.25 / n**2
    return np.asarray(found + least * np.eye(models))
