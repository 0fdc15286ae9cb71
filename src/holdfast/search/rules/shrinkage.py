"""How much better than the default each trial is, once the luck of few rows is taken out.

The score of a row is the probability that it gave to what was right, exp(−loss): it moves where an
answer turns from hardly wrong to hardly right, while accuracy jumps. On 60 rows of the recorded
arena (``benchmarks/arena/table.py``, 200 draws a set) its differences are 0.36 to 0.40 times as
noisy relative to what they measure, and the best of 31 settings by it is 0.3, 1.5 and 0.3 points
better on unseen rows than the best by accuracy (CR, TREC, BANKING77).
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
    errors; ``mean`` [K] that of the true gain given all that was measured.
    ``centres``, ``spreads`` and ``weights`` [G] are the law of settings as the trials showed it:
    means and deviations of normal laws, and how likely each is.
    """

    keys: tuple[str, ...]
    measured: Floats
    errors: Floats
    mean: Floats
    centres: Floats
    spreads: Floats
    weights: Floats

    def index(self, key: str) -> int:
        """The place of a trial."""
        return self.keys.index(key)


def probability_scores(losses: Mapping[str, Floats]) -> dict[str, Floats]:
    """The score of each row of each trial (``probabilities``); a loss that is no number is 0.

    ``losses`` [n] in nats, the same rows in the same order for each trial, best after the
    temperature that suits the trial. Raises ``Defect`` for trials of other numbers of rows, or of
    none.
    """
    sizes = {len(rows) for rows in losses.values()}
    if len(sizes) != 1 or 0 in sizes:
        rule = "must be of the same validation rows in each trial, and of one at least"
        raise Defect("the losses of a search", rule, sorted(sizes))
    ratio = any((np.asarray(rows) < 0).any() for rows in losses.values())
    return {key: np.nan_to_num(probabilities(rows, ratio)) for key, rows in losses.items()}


def probabilities(losses: Floats, ratio: bool | None = None) -> Floats:
    """exp(−loss) of each row [n], in [0, 1]. No loss is below 0 but a row of a mean over tokens
    (``ratio``; see ``stats/paired_tests.py``): there the rows of exp(−mean), 1 ÷ perplexity, to the
    first order."""
    rows = np.asarray(losses, dtype=np.float64)
    if not ((rows < 0).any() if ratio is None else ratio):
        return np.exp(-rows)
    known = rows[np.isfinite(rows)]
    mean = float(known.mean()) if len(known) else 0.0
    return np.asarray(np.exp(-mean) * (1 - (rows - mean)))


def shrink_gains(scores: Mapping[str, Floats], default: str, units: Ints | None = None) -> Shrunken:
    """The gain of each trial over ``default``, by empirical Bayes over the trials.

    A trial's measured gain is its true one and noise, D_k ~ N(δ_k, s_k² ÷ n) with s_k the spread of
    its paired differences, row by row. The true gains are drawn from ¾ N(μ, τ²) − ¼ |N(0, 0.2²)|,
    the second for settings that went wrong; μ and τ have a weak prior and are integrated out on a
    grid (Efron and Morris 1973; Robbins 1956). So a gain is believed as far as the differences
    between the trials are larger than their noise: of 64 settings that differ by luck alone none is
    far from the default, and one trial is believed less than the same gain seen in many.

    Noise is taken as each trial's own. A common part of it (rows that the default gets wrong by bad
    luck) was tried as one more thing to integrate out: it explained away what settings are worth,
    and believed twice what lasts of the winner among 32.

    The gain of the default is 0 by definition. ``units`` [n]: rows of one unit (a group, copies)
    are no evidence of their own; without them each row is. Raises ``Defect`` where ``default`` is
    no trial.
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
    """Of a gain from −|N(0, 0.2²)| that is seen with the ``noise``: how likely that is, and the
    mean of the true one, a normal law cut off above 0."""
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
