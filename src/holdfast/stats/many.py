"""P-values of many questions that were asked at once."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Floats


def holm(p_values: Floats) -> Floats:
    """Holm's adjusted p-values (Holm 1979), in the order given, [k].

    The i-th smallest of k is multiplied by k − i + 1, then raised to those before it. Rejecting
    where the result is α or less makes a single false rejection among all with probability α at
    most, however the questions depend on one another; it never rejects less than Bonferroni.
    """
    p = np.asarray(p_values, dtype=np.float64)
    return weighted_holm(p, np.ones_like(p))


def weighted_holm(p_values: Floats, weights: Floats) -> Floats:
    """Holm's procedure where some questions are asked with more of the level (Holm 1979, section
    4), [k].

    The questions are taken in the order of p ÷ weight; each is multiplied by the weights of those
    that are left ÷ its own, then raised to those before it. The same guarantee as ``holm``, which
    equal weights give, as long as ``weights`` [k], above 0, were fixed without a look at the p.
    """
    p, w = np.asarray(p_values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = np.argsort(p / w, kind="stable")
    left = np.cumsum(w[order][::-1])[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * left / w[order]))
    return adjusted
