"""How many rows would settle a paired question?

What ``inconclusive`` owes its reader: the size at which the same test would tell, if the rows to
come are like the rows that were seen.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.stats.bootstrap import atoms_by_look

# Doubling must end somewhere, and no set has more rows.
MOST = 10**12


def rows_to_settle(
    gap: Floats,
    margin: float,
    *,
    sides: Literal[1, 2] = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    sure: float | None = None,
    groups: Ints | None = None,
) -> int | None:
    """The smallest number of rows with which a paired t test finds a mean difference of ``margin``.

    The smallest n with P(T > t_{n−1, 1−alpha/sides}) ≥ power, T noncentral t with n − 1 degrees of
    freedom and noncentrality √n · margin ÷ s, s the observed spread (Cohen 1988, chapter 2). For
    many rows this is ((z_{1−alpha/sides} + z_power) s ÷ margin)².

    Parameters
    ----------
    gap : [n] paired differences per row that were seen: losses, or correctness as −1, 0, 1.
    margin : the smallest mean difference that matters, above 0, in the unit of ``gap``.
    sides : 1 asks "is it worse?", 2 "do they differ?".
    sure : how sure the answer shall be that s is not too small: s is replaced by its upper
        limit of that level, s √((n − 1) ÷ χ²_{1−sure}). By default s itself: then half of the
        answers are too small, many by much when a handful of rows was seen.
    groups : [n], whole numbers 0 … G−1; whole groups of the same mean size are then counted.

    Fewer than two rows (groups) or a difference that is not finite: None, for there is no spread
    to go by. No spread at all: the fewest rows that can be tested, two.
    """
    from scipy.special import chdtri

    if not 0 < margin < math.inf:
        raise Defect("the margin to settle", "must be positive and finite", margin)
    if not 0 < alpha < power < 1:
        raise Defect("level and power", "need 0 < alpha < power < 1", (alpha, power))
    atoms = atoms_by_look(np.asarray(gap, dtype=np.float64)[:, None], groups)[:, 0]
    if len(atoms) < 2 or not np.isfinite(atoms).all():
        return None
    spread = float(atoms.std(ddof=1))
    if sure is not None:
        spread *= math.sqrt((len(atoms) - 1) / float(chdtri(len(atoms) - 1, sure)))
    return math.ceil(_least(spread / margin, alpha / sides, power) * len(gap) / len(atoms))


def _least(ratio: float, tail: float, power: float) -> int:
    """The smallest n ≥ 2 with enough power, by doubling and then halving; power rises with n."""
    high = 2
    while _power(high, ratio, tail) < power:
        high *= 2
        if high > MOST:
            rule = f"is too small beside the spread: over {MOST:.0e} rows"
            raise Defect("the margin to settle", rule, 1 / ratio)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, ratio, tail) >= power else (middle, high)
    return high


def _power(n: int, ratio: float, tail: float) -> float:
    from scipy.special import nctdtr, ndtr, ndtri, stdtrit

    if ratio == 0:
        return 1.0
    shift = math.sqrt(n) / ratio
    if n > 10_000:
        # The noncentral t loses digits there and equals the normal law to four places.
        return float(ndtr(shift + ndtri(tail)))
    return 1.0 - float(nctdtr(n - 1, shift, stdtrit(n - 1, 1 - tail))) if shift < 30 else 1.0
