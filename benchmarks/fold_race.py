"""When the folds of a losing setting may end early.

Settings that are compared over folds mostly lose, and most of the fits show what the first folds
did. 2405.03389 ends the folds of a setting by comparing its mean so far with the best setting's:
``aggressive`` with its mean, ``forgiving`` with its worst fold. Both look at folds alone, of which
there are few; here the same rows of both are compared, of which there are many.

After f of K folds, n rows with differences dᵢ (setting minus best, mean d̄, variance s²), the
difference over all folds is forecast as

    D ~ N( d̄ , (1 − f/K)² s² (1/n + 1/n′) ),   n′ = n (K − f) / f   rows to come

and the folds end where P(D > 0) is below ``chance``. It forgives: a setting that is a little worse
on the first fold has a fold's noise to its credit, and nothing ends before a number of rows differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats

# Chosen on CR and MR (benchmarks/cross_validation.py): of those that make 40 % of the fits at most.
CHANCE = 0.2
# Of rows that differ between the two settings: fewer say nothing, whatever their mean.
LEAST_DIFFERING = 4


def folds_may_end(
    own: Sequence[Floats],
    best: Sequence[Floats],
    folds: int,
    *,
    chance: float = CHANCE,
    least: int = LEAST_DIFFERING,
) -> str | None:
    """Why a setting's remaining folds need not be fitted; ``None`` where they are to be.

    Parameters
    ----------
    own : the setting's scores of the held rows of its folds so far, one array [n_f] a fold; higher
        is better (1 where right, or minus the loss).
    best : the same rows by the best setting whose folds are all done; it may hold more folds.
    folds : K, of which ``own`` holds the first f, at least 1.
    chance : the least probability of still becoming the better one for which it goes on, in (0, 1).
    least : rows that must differ before anything is said.

    Pure and deterministic. With all K folds there is nothing left to end: ``None``.
    """
    f = len(own)
    if not 1 <= f <= folds or len(best) < f or not 0 < chance < 1:
        raise Defect("a race of folds", "needs 1 to K folds of both settings", (f, len(best)))
    if f == folds:
        return None
    parts = zip(own, best[:f], strict=True)
    d = np.concatenate([np.asarray(a, np.float64) - np.asarray(b, np.float64) for a, b in parts])
    n, differing = len(d), int((d != 0).sum())
    mean = float(d.mean()) if n else 0.0
    if differing < least or mean >= 0:
        return None
    come = n * (folds - f) / f
    error = (1 - f / folds) * float(d.std(ddof=1)) * math.sqrt(1 / n + 1 / come)
    better = 0.5 * math.erfc(-mean / error / math.sqrt(2)) if error else 0.0
    if better >= chance:
        return None
    return (
        f"after {f} of {folds} folds it is {-mean:.4f} a row below the best setting, on {n} rows, "
        f"and would be better over all folds with probability {better:.2f}"
    )


def forgiving(own: Sequence[float], best: Sequence[float]) -> bool:
    """Whether the mean of the ``own`` folds' scores so far is below the worst fold of the ``best``
    setting (2405.03389, "forgiving"); for comparison."""
    return bool(np.mean(own) < np.min(best))
