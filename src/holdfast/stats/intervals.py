"""Intervals of rates and of means over classes, and tests of two rates over different or the same
rows.

Siblings: ``wilson`` is the default for every rate in a report, close to its level on average;
``clopper_pearson`` never falls below its level and is wider; ``wilson_by_groups`` is Wilson with
the sample shrunk to its effective size for rows in groups. Two rates over different rows have
``fisher`` and ``rate_gap``. Over the same rows, ``noninferiority_p`` and ``tango`` test a margin;
``paired_tests.mcnemar`` is the exact case of a margin of 0. ``paired_tests.newcombe`` is an
interval in closed form, built for its average coverage; Tango's is built for a bounded error rate.

For the mean of per-class scores (``mean_limits``) the bootstrap misses the uncertainty of a rare
class: one row drawn repeatedly is always correct or always wrong, and is missing in one resample in
three. Joining one score interval per class (MOVER: Zou and Donner 2008) keeps the uncertainty of
each rare class in the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints


def normal_quantile(level: float) -> float:
    """The two-sided normal quantile of ``level``, e.g. 1.96 at 0.95."""
    if not 0.0 < level < 1.0:
        raise Defect("the level of an interval", "must lie strictly between 0 and 1", level)
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(
    successes: float, n: float, level: float = 0.95, *, quantile: float | None = None
) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927; Brown, Cai and DasGupta 2001).

    (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) ÷ (1 + z²/n), within [0, 1], the solutions of
    |p̂ − p| = z √(p(1−p)/n). ``n`` may be an effective size, so not a whole number; ``quantile``
    replaces z. ``n = 0`` gives (0, 1).
    """
    _check_rate(successes, n)
    if n == 0:
        return 0.0, 1.0
    z = normal_quantile(level) if quantile is None else quantile
    rate, z2n = successes / n, z * z / n
    centre = (rate + z2n / 2) / (1 + z2n)
    half = z * math.sqrt(rate * (1 - rate) / n + z2n / (4 * n)) / (1 + z2n)
    # These limits are exactly 0 and 1 by algebra; floating point would leave 1e-17.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate (Clopper and Pearson 1934), from quantiles of the beta
    distribution.

    Its coverage is at least ``level`` for every rate; therefore it is wide. ``n = 0`` gives (0, 1).
    """
    from scipy.special import betaincinv

    _check_rate(successes, n)
    tail = (1 - level) / 2
    # The beta distribution with a parameter of 0 has no quantile.
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def design_effect(hits: npt.NDArray[np.bool_] | Floats, groups: Ints) -> float:
    """How many times larger the variance of a rate is because rows come in groups.

    The linearised variance of the ratio estimator, G/(G−1) Σ_g (Σ_{i∈g} (x_i − p̂))² ÷ n²,
    over p̂(1−p̂)/n (Kish 1965). ``groups`` [n] are whole numbers 0 … G−1. Never below 1 here, to be
    conservative. If all rows are equal, the variance shows nothing, so the rows of a group count as
    duplicates of each other, Σ m_g² ÷ n. One group: NaN.
    """
    sizes = np.bincount(groups)
    # A number without rows is not a group.
    sizes, n = sizes[sizes > 0], len(groups)
    if len(sizes) < 2:
        return math.nan
    rate = float(np.mean(hits))
    if rate in (0.0, 1.0):
        return float((sizes.astype(float) ** 2).sum() / n)
    residuals = np.bincount(groups, weights=hits - rate)
    variance = len(sizes) / (len(sizes) - 1) * float((residuals**2).sum()) / n**2
    return max(1.0, variance / (rate * (1 - rate) / n))


def group_freedom(sizes: npt.ArrayLike) -> float:
    """The degrees of freedom of Student's t for groups with so many rows, ``sizes`` [G].

    Kish's effective number of groups, (Σ m_g)² ÷ Σ m_g², less 1, and at least 1: G − 1 for equal
    sizes (Kish 1965; Carter, Schnepel and Steigerwald 2017). In a simulation of 6 groups of unequal
    sizes (log-normal, sigma 1), 95 % intervals of accuracy covered the truth in 86 to 94 % of
    samples with G − 1, and in 95 to 98 % with this; benchmarks/few_groups.py measures only this.
    """
    rows = np.asarray(sizes, dtype=np.float64)
    return max(1.0, float(rows.sum() ** 2 / (rows**2).sum()) - 1)


def wilson_by_groups(
    hits: npt.NDArray[np.bool_] | Floats, groups: Ints, level: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a rate for rows that come in groups (Dean and Pagano 2015).

    The sample is shrunk to n ÷ design effect, and z is replaced by the t quantile with
    ``group_freedom`` degrees of freedom. Fewer than two groups: (NaN, NaN), because the rows do not
    show how groups differ.
    """
    from scipy.special import stdtrit

    effect = design_effect(hits, groups)
    if math.isnan(effect):
        return math.nan, math.nan
    # Count only groups with rows here; the codes may be those of a larger table.
    freedom = group_freedom(np.unique(groups, return_counts=True)[1])
    effective = len(hits) / effect
    quantile = float(stdtrit(freedom, 0.5 + level / 2))
    return wilson(float(np.mean(hits)) * effective, effective, level, quantile=quantile)


def rejection_limit(
    is_rejected: Callable[[float], bool], outside: float, inside: float, halvings: int
) -> float:
    """The value nearest to ``inside`` that is still ``is_rejected``, by this many bisections of the
    way from ``outside``, which is rejected: it inverts a test into a limit."""
    for _ in range(halvings):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if is_rejected(middle) else (outside, middle)
    return outside


def _check_rate(successes: float, n: float) -> None:
    # An effective count of successes is rate × n, which may round to a hair above n.
    if n < 0 or successes < 0 or successes > n * (1 + 1e-12):
        raise Defect("a rate", "needs 0 ≤ successes ≤ n", (successes, n))


def fisher_above(hits_1: int, n_1: int, hits_2: int, n_2: int) -> float:
    """The one-sided p-value of Fisher's exact test (1935) that the first rate is not above the
    second: P(X ≥ hits_1), X hypergeometric. Without rows in a sample: 1."""
    from scipy.special import gammaln

    if min(hits_1, hits_2) < 0 or hits_1 > n_1 or hits_2 > n_2:
        raise Defect("two rates", "need 0 ≤ hits ≤ n", (hits_1, n_1, hits_2, n_2))
    if not n_1 or not n_2:
        return 1.0
    hits = hits_1 + hits_2
    # The first has at most all hits, and at least those that do not fit into the second.
    k = np.arange(max(hits_1, hits - n_2), min(n_1, hits) + 1, dtype=np.float64)

    def log_choose(n: int, k: Floats) -> Floats:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    log_total = log_choose(n_1 + n_2, np.array([float(hits)]))
    terms = np.exp(log_choose(n_1, k) + log_choose(n_2, hits - k) - log_total)
    return min(1.0, float(terms.sum()))


def fisher(hits_1: int, n_1: int, hits_2: int, n_2: int) -> float:
    """The two-sided p-value of "both rates are the same" by Fisher's exact test, as SciPy and R
    define it."""
    from scipy.stats import fisher_exact

    table = np.array([[hits_1, n_1 - hits_1], [hits_2, n_2 - hits_2]])
    return float(fisher_exact(table).pvalue)


def rows_for_rates(
    rate_1: float, rate_2: float, share: float, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Total rows of both samples with which a one-sided test at ``alpha`` distinguishes ``rate_1``
    from ``rate_2``, if a ``share`` in (0, 1) of them is in the first.

    (z_{1−α} √(p̄(1−p̄)(1/s + 1/(1−s))) + z_power √(p₁(1−p₁)/s + p₂(1−p₂)/(1−s)))² ÷ (p₁ − p₂)²,
    p̄ the rate of both together (Fleiss, Levin and Paik 2003, section 4.2).
    """
    if not 0 < share < 1 or rate_1 == rate_2:
        raise Defect("rows for two rates", "need two rates and a share in (0, 1)", (rate_1, share))
    # Two-sided quantiles: level 1 − 2α has z_{1−α}.
    z, w = normal_quantile(1 - 2 * alpha), normal_quantile(2 * power - 1)
    both = share * rate_1 + (1 - share) * rate_2
    null = math.sqrt(both * (1 - both) * (1 / share + 1 / (1 - share)))
    other = math.sqrt(rate_1 * (1 - rate_1) / share + rate_2 * (1 - rate_2) / (1 - share))
    return math.ceil(((z * null + w * other) / (rate_1 - rate_2)) ** 2)


# Number of quantiles of the first rate over which the probability of the second is averaged.
GRID = 1000


def rate_gap(
    hits_1: float, n_1: float, hits_2: float, n_2: float, level: float = 0.95
) -> tuple[float, float]:
    """An interval of p₁ − p₂ from independent samples (Newcombe 1998, method 10 of eleven).

    Wilson's limits l, u of each rate: p̂₁ − p̂₂ − √((p̂₁ − l₁)² + (u₂ − p̂₂)²) and
    p̂₁ − p̂₂ + √((u₁ − p̂₁)² + (p̂₂ − l₂)²). It keeps its level at rates near 0 and 1 and with few
    rows. The sizes may be effective ones, so not whole numbers. For two rates of the same rows use
    ``paired_tests.newcombe``. Without rows in a sample: (−1, 1).
    """
    if not n_1 or not n_2:
        return -1.0, 1.0
    rate_1, rate_2 = hits_1 / n_1, hits_2 / n_2
    low_1, high_1 = wilson(hits_1, n_1, level)
    low_2, high_2 = wilson(hits_2, n_2, level)
    down = math.hypot(rate_1 - low_1, high_2 - rate_2)
    up = math.hypot(high_1 - rate_1, rate_2 - low_2)
    return max(-1.0, rate_1 - rate_2 - down), min(1.0, rate_1 - rate_2 + up)


def gap_probability(hits_1: float, n_1: float, hits_2: float, n_2: float, line: float) -> float:
    """The probability that p₁ − p₂ is above ``line``, for independent samples and uniform priors
    of both rates (Bayes 1763; Laplace): the mean, over p₁ drawn from
    Beta(hits₁ + 1, n₁ − hits₁ + 1), of P(p₂ < p₁ − line), p₂ from Beta(hits₂ + 1, n₂ − hits₂ + 1).
    p₁ is taken at ``GRID`` quantiles; the error is below 0.001. A sample may have no rows."""
    from scipy.special import betainc, betaincinv

    first = betaincinv(hits_1 + 1, n_1 - hits_1 + 1, (np.arange(GRID) + 0.5) / GRID)
    second = betainc(hits_2 + 1, n_2 - hits_2 + 1, np.clip(first - line, 0.0, 1.0))
    return float(second.mean())


# Half a row against the claim. By enumeration of all tables (margins 1, 2 and 5 points, 100 to
# 3,000 rows, discordant shares from the margin to 25 %) the test at 5 % then errs in 4.8 % at most;
# without it in up to 6.0 %, a Wald test in up to 37 %.
CONTINUITY_CORRECTION = 0.5
# Bisections of (−1, 1): one more than 52 would reach its end.
HALVINGS = 48


def noninferiority_p(only_first: int, only_second: int, n: int, margin: float) -> float:
    """The one-sided p-value of "the first is correct at least ``margin`` more often than the
    second": small if it is shown to be less than that.

    With b and c the rows that only the first or only the second predicts correctly, z is
    (b + ½ − c − n m) ÷ √(n (2 q + m (1 − m))), q the most likely P(only the second) under the null
    (Tango 1998), and the p-value is Φ(z). The ½ is ``CONTINUITY_CORRECTION``.

    ``margin`` lies strictly between −1 and 1. Rows count as independent. No rows: 1.
    """
    from scipy.special import ndtr

    if not -1 < margin < 1:
        raise Defect("the margin of two rates", "must lie strictly between -1 and 1", margin)
    if not 0 <= only_first + only_second <= n:
        raise Defect("discordant rows", "are at most all rows", (only_first, only_second, n))
    if not n:
        return 1.0
    b, c = min(only_first + CONTINUITY_CORRECTION, n), only_second
    gap = b - c - n * margin
    # The positive root of 2 n q² + half q − c m (1 − m) = 0.
    half = (2 * n - b + c) * margin - b - c
    root = math.sqrt(max(half * half + 8 * n * c * margin * (1 - margin), 0.0))
    likely = (root - half) / (4 * n)
    variance = n * (2 * likely + margin * (1 - margin))
    if variance <= 1e-12:
        # ±∞ where the variance under the null is 0.
        return float(ndtr(math.copysign(math.inf, gap) if gap else 0.0))
    return float(ndtr(gap / math.sqrt(variance)))


def tango(only_first: int, only_second: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The margins that neither one-sided test rejects at (1 − level) ÷ 2: an interval of
    rate(first) − rate(second) within [−1, 1]. No rows: (−1, 1)."""
    if not n:
        return -1.0, 1.0

    def limit(first: int, second: int) -> float:
        # The p-value falls as the margin rises.
        tail = (1 - level) / 2
        return rejection_limit(
            lambda m: noninferiority_p(first, second, n, m) <= tail, 1.0, -1.0, HALVINGS
        )

    return -limit(only_second, only_first), limit(only_first, only_second)


def f1_limits(right: Ints, either: Ints, level: float = 0.95) -> tuple[Floats, Floats]:
    """Limits of F1 per class [classes]: F1 = 2q ÷ (1 + q) increases with the share q = right ÷
    either of the rows that are labelled or predicted as the class, which has Wilson's interval. A
    class with no such rows: (0, 1)."""
    low, high = rate_limits(right, either, level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def rate_limits(hits: Ints, among: Ints, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's limits of one rate per class, twice [classes]."""
    pairs = [wilson(float(x), float(n), level) for x, n in zip(hits, among, strict=True)]
    limits = np.array(pairs).reshape(-1, 2)
    return limits[:, 0], limits[:, 1]


def mean_limits(
    value: Floats, low: Floats, high: Floats, correlation: Floats, bias: float = 0.0
) -> tuple[float, float]:
    """Limits of the unweighted mean of ``value`` [classes] from each class's own limits.

    With gaps a = (value − low) ÷ classes: mean − √(aᵀ R a), and likewise above, where R
    [classes, classes] is the correlation of the estimates. Both limits are moved by −``bias``, the
    known bias of the mean, and then kept on their side of the mean and within [0, 1].
    """
    size = len(value)
    below, above = (value - low) / size, (high - value) / size
    # Below 0 only by rounding: second moments of rows are positive semidefinite.
    down = math.sqrt(max(0.0, float(below @ correlation @ below)))
    up = math.sqrt(max(0.0, float(above @ correlation @ above)))
    centre = float(value.mean())
    low_limit, high_limit = centre - down - bias, centre + up - bias
    return max(0.0, min(low_limit, centre)), min(1.0, max(high_limit, centre))


def f1_correlation(confusion: Floats) -> Floats:
    """The correlation of the classes' F1 estimates, [classes, classes], by the delta method.

    ``confusion`` [classes, classes], rows are the labels. With D_c = labelled + predicted rows, a
    row in cell (i, j) changes F1_i by −F1_i ÷ D_i and F1_j by −F1_j ÷ D_j, and by (2 − 2 F1_c) ÷
    D_c on the diagonal: two classes share an error, so they rise and fall together. Half a row per
    class is added on and off the diagonal, because a class that is all correct or all wrong would
    otherwise have no influence to correlate.
    """
    size = len(confusion)
    # Half a row in total, spread over the wrong predictions of a class.
    off = (1 - np.eye(size)) / max(1, size - 1)
    counts = confusion + 0.5 * np.eye(size) + 0.5 * off
    diagonal = np.diag(counts)
    both = counts.sum(axis=0) + counts.sum(axis=1)
    f1 = 2 * diagonal / both
    errors = counts - np.diag(diagonal)
    shared = (errors + errors.T) * np.outer(f1 / both, f1 / both)
    spread = diagonal * ((2 - 2 * f1) / both) ** 2
    spread += (errors.sum(axis=0) + errors.sum(axis=1)) * (f1 / both) ** 2
    if size == 1:
        return np.ones((1, 1))
    correlation = shared / np.sqrt(np.outer(spread, spread))
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)
