"""Shrinkage: how much better than the default each trial is, corrected for chance on few rows.

The score of a row is the predicted probability of its correct label, exp(−loss). It changes where a
prediction turns from slightly wrong to slightly correct, while accuracy jumps. On 60 rows of the
recorded trials (``benchmarks/arena/table.py``, 200 draws a set) its differences are 0.36 to 0.40
times as noisy relative to what they measure, and the best of 31 settings by it is 0.3, 1.5 and 0.3
points better on unseen rows than the best by accuracy (CR, TREC, BANKING77).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints, softmax
from holdfast.stats.paired_tests import by_groups

# What is believed of settings before any is tried, in shares of the score, with the spread of that
# belief; a few trials move it. Chosen on heads over frozen features (benchmarks/arena/heads.py),
# of which random ones are worse than a good default on average.
CENTRE, CENTRE_SPREAD = -0.02, 0.03
SPREAD, SPREAD_RATIO = 0.02, 2.0
# Settings that went wrong (a rate that explodes) only lose, by a law of their own: they must not
# make what the others show look larger.
WRONG, WRONG_SPREAD = 0.25, 0.2
CENTRES = np.linspace(-0.08, 0.03, 12)
SPREADS = np.array([0.003, 0.006, 0.012, 0.02, 0.03, 0.05])
# A setting that answers every row as the default does has no spread to divide by.
MIN_VARIANCE = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Shrunken:
    """The gains of K trials over the default, in shares of the score (0.01 is a point).

    ``measured`` [K] are the plain mean differences over the rows, ``errors`` [K] their standard
    errors; ``mean`` [K] the posterior mean of the true gain. ``centres``, ``spreads`` and
    ``weights`` [G] are the estimated distribution of the settings' true gains: means and standard
    deviations of normal distributions, and the weight of each.
    """

    keys: tuple[str, ...]
    measured: Floats
    errors: Floats
    mean: Floats
    centres: Floats
    spreads: Floats
    weights: Floats

    def index(self, key: str) -> int:
        """The index of a trial."""
        return self.keys.index(key)


def probability_scores(losses: Mapping[str, Floats]) -> dict[str, Floats]:
    """The score of each row of each trial (``probabilities``); a loss that is not a number scores
    0.

    ``losses`` [n] in nats, the same rows in the same order for each trial, preferably calibrated
    with the trial's temperature. Raises ``Defect`` if the trials have different numbers of rows, or
    none.
    """
    sizes = {len(rows) for rows in losses.values()}
    if len(sizes) != 1 or 0 in sizes:
        rule = "must be of the same validation rows in each trial, and of one at least"
        raise Defect("the losses of a search", rule, sorted(sizes))
    ratio = any((np.asarray(rows) < 0).any() for rows in losses.values())
    return {key: np.nan_to_num(probabilities(rows, ratio)) for key, rows in losses.items()}


def probabilities(losses: Floats, ratio: bool | None = None) -> Floats:
    """exp(−loss) of each row [n], in [0, 1]. A loss is below 0 only for a row of a mean over tokens
    (``ratio``; see ``stats/paired_tests.py``): there it is the row's part of exp(−mean), 1 ÷
    perplexity, to first order."""
    rows = np.asarray(losses, dtype=np.float64)
    if not ((rows < 0).any() if ratio is None else ratio):
        return np.exp(-rows)
    known = rows[np.isfinite(rows)]
    mean = float(known.mean()) if len(known) else 0.0
    return np.asarray(np.exp(-mean) * (1 - (rows - mean)))


def shrink_gains(scores: Mapping[str, Floats], default: str, units: Ints | None = None) -> Shrunken:
    """The gain of each trial over ``default``, by empirical Bayes over the trials.

    A trial's measured gain is its true gain plus noise, D_k ~ N(δ_k, s_k² ÷ n) with s_k the
    standard deviation of its paired differences, row by row. The true gains are drawn from ¾ N(μ,
    τ²) − ¼ |N(0, 0.2²)|, the second part for settings that failed; μ and τ have a weak prior and
    are integrated out on a grid (Efron and Morris 1973; Robbins 1956). A gain therefore counts as
    far as the differences between the trials exceed their noise: of 64 settings that differ only by
    chance, none is far from the default, and a gain seen in one trial counts less than the same
    gain seen in many.

    Noise is modelled as independent between trials. A common part (rows that the default gets wrong
    by chance) was tried as one more parameter to integrate out: it explained away true gains, and
    overstated the winner's remaining gain among 32 by a factor of two.

    The gain of the default is 0 by definition. ``units`` [n]: rows of one unit (a group,
    duplicates) are not independent; without units each row is. Raises ``Defect`` if ``default`` is
    not a trial.
    """
    if default not in scores:
        raise Defect("the default of a search", "must be one of its trials", default)
    keys = tuple(scores)
    rows = np.stack([np.asarray(scores[key], dtype=np.float64) for key in keys])
    differences = rows - rows[keys.index(default)]
    raw_gains = differences.mean(axis=1)
    differences = (
        differences if units is None else np.stack([by_groups(one, units) for one in differences])
    )
    n, is_other = differences.shape[1], np.array([key != default for key in keys])
    variances = differences.var(axis=1, ddof=1) / n if n > 1 else np.full(len(keys), 0.25)
    means, noise = np.zeros(len(keys)), np.maximum(variances[is_other], MIN_VARIANCE)
    means[is_other], centres, spreads, weights = _posterior(raw_gains[is_other], noise)
    errors = np.where(is_other, np.sqrt(variances), 0.0)
    return Shrunken(keys, raw_gains, errors, means, centres, spreads, weights)


def _posterior(gains: Floats, noise: Floats) -> Sequence[Floats]:
    """The mean [k] of each true gain, and the grid of μ and τ with its weights."""
    centre, spread = (one.ravel()[:, None] for one in np.meshgrid(CENTRES, SPREADS, indexing="ij"))
    prior = -0.5 * ((centre[:, 0] - CENTRE) / CENTRE_SPREAD) ** 2
    prior -= 0.5 * (np.log(spread[:, 0] / SPREAD) / np.log(SPREAD_RATIO)) ** 2
    total = spread**2 + noise
    regular = (1 - WRONG) * _normal(gains - centre, total)
    shrunken_gain = centre + spread**2 / total * (gains - centre)
    wrong, wrong_mean = _wrong(gains, noise)
    # Far beyond both laws each of them is 0 in floating point.
    density = np.maximum(regular + WRONG * wrong, 1e-300)
    weights = softmax(prior + np.log(density).sum(axis=1))
    regular_share = regular / density
    mean = regular_share * shrunken_gain + (1 - regular_share) * wrong_mean
    return weights @ mean, centre[:, 0], spread[:, 0], weights


def _wrong(gains: Floats, noise: Floats) -> Sequence[Floats]:
    """For a gain from −|N(0, 0.2²)| seen with ``noise``: its likelihood, and the mean of the true
    gain, a normal distribution truncated above 0."""
    from scipy.special import log_ndtr

    total = WRONG_SPREAD**2 + noise
    centre, spread = WRONG_SPREAD**2 / total * gains, np.sqrt(WRONG_SPREAD**2 * noise / total)
    at = -centre / spread
    below = log_ndtr(at)
    # Mills' ratio by logarithms: far out both of its parts are 0 in floating point.
    ratio = np.exp(-0.5 * at**2 - 0.5 * np.log(2 * np.pi) - below)
    return 2 * _normal(gains, total) * np.exp(below), centre - spread * ratio


def _normal(gap: Floats, variance: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * gap**2 / variance) / np.sqrt(2 * np.pi * variance))
