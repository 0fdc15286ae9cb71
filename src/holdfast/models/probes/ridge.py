"""A linear probe in closed form for any kind of label: least squares with a penalty, out of fold.

    W = argmin ‖Y − X W‖² + λ ‖W‖²,  X and Y centred by the rows that are learned from

(Hoerl and Kennard, Technometrics 1970). Y [n, C] holds 0 and 1 for classes and labels, or numbers.
Where ``models/probes/probe.py`` minimises the log loss of classes by L-BFGS, this needs one
decomposition a fold for every λ: it asks each layer of each of many models what it knows in
milliseconds. Folds come from the caller, so that copies and groups stay together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints

Array = npt.NDArray[np.float64]
# λ in shares of the features' mean variance along a direction, times the rows.
SHARES = tuple(float(s) for s in 10.0 ** np.arange(-4, 2.1, 0.5))


@dataclass(frozen=True, slots=True)
class RidgeFold:
    """``answers`` [n, C], each by a fit that had not learned from its row; ``share`` is the λ of
    the least squared ``error`` (mean over rows and columns) among ``SHARES``."""

    answers: Array
    share: float
    error: float


def ridge_out_of_fold(features: Floats, targets: Floats, folds: Ints) -> RidgeFold:
    """Answer every row of ``features`` [n, D] by the rows of the other ``folds`` [n] (numbers, at
    least two different ones), for ``targets`` [n, C]."""
    x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    said = np.zeros((len(SHARES), *y.shape))
    for fold in np.unique(folds):
        held = folds == fold
        said[:, held] = _answers(x[~held], y[~held], x[held])
    errors = ((said - y) ** 2).mean(axis=(1, 2))
    best = int(errors.argmin())
    return RidgeFold(said[best], SHARES[best], float(errors[best]))


def _answers(x: Array, y: Array, held: Array) -> Array:
    """[λ, held rows, C]."""
    middle, level = x.mean(axis=0), y.mean(axis=0)
    x, y, held = x - middle, y - level, held - middle
    unit = float((x**2).mean()) * len(x) or 1.0
    wide = x.shape[1] > x.shape[0]
    # The smaller of the two products: W = Xᵀ (X Xᵀ + λ)⁻¹ Y = (Xᵀ X + λ)⁻¹ Xᵀ Y.
    squares, basis = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    seen = (held @ x.T if wide else held) @ basis
    known = basis.T @ (y if wide else x.T @ y)
    return np.stack(
        [seen @ (known / (np.maximum(squares, 0) + s * unit)[:, None]) + level for s in SHARES]
    )
