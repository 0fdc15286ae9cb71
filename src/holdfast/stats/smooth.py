"""A short noisy series without its outliers: the running median.

Sibling: a running mean lets one wild point move a whole window; the median gives it no say until
half of the window is wild, and it keeps a step sharp.
"""

from __future__ import annotations

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats


def running_median(y: Floats, window: int) -> Floats:
    """The median of each point and its neighbours, [n] (Tukey 1977).

    Towards the ends the window shrinks on both sides alike, to min(window, 2i + 1,
    2(n − 1 − i) + 1) points, so the first and last point stay as they are and no lag appears.
    NaN is left out of its windows, and where nothing is left the result is NaN; +∞ and −∞ count as
    very large and very small values (between two of opposite sign the median is NaN).

    ``window`` : odd, at least 1; 1 changes nothing. An even one: a ``Defect``.
    """
    if window < 1 or window % 2 == 0:
        raise Defect("the window of a running median", "must be odd and at least 1", window)
    found = np.asarray(y, dtype=np.float64)
    n = len(found)
    reach = np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), window // 2)
    parts = (found[i - r : i + r + 1] for i, r in enumerate(reach))
    return np.array([_median(part[~np.isnan(part)]) for part in parts], dtype=np.float64)


def _median(part: Floats) -> float:
    if not len(part):
        return np.nan
    with np.errstate(invalid="ignore"):
        return float(np.median(part))
