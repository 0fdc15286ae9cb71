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
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, raised)
    return adjusted
