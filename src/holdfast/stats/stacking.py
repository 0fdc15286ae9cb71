"""Stacking: the weights of several models when their predictions are combined.

Weights lie on the simplex and are shrunk towards the plain mean, because the best weights of few
rows are not the best ones in general (Yao et al. 2018, 1704.02030; Claeskens et al. 2016 on why
equal weights are hard to beat). ``held_out_losses`` shows whether they are better at all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from holdfast.core.records import Floats, Ints

# Equal weights count as evidence of this many rows; chosen on MR, see benchmarks/ensembles.py.
PRIOR_ROWS = 5.0
FOLDS = 5
STEPS, TOLERANCE = 5000, 1e-10


def mixture_weights(
    probabilities: Floats, shrink: float = PRIOR_ROWS, counts: Floats | None = None
) -> Floats:
    """The weights w [members] of a mixture of probabilities that maximise the likelihood.

    argmax over the simplex of  Σ_i c_i log Σ_m w_m p_im + (s ÷ M) Σ_m log w_m,  the second term a
    Dirichlet prior that counts as much as ``shrink`` = s rows. By EM, w_m ← (Σ_i c_i r_im + s ÷ M)
    ÷ (Σ c + s) with r_im = w_m p_im ÷ Σ_k w_k p_ik; the objective is concave, so the solution is
    unique.

    ``probabilities`` [n, members] are those that each member gave to the true outcome, in (0, 1];
    an outcome to which all gave 0 is left out. ``counts`` [n] weigh the outcomes (1 each): for
    words or labels of one row 1 ÷ their number, so that ``shrink`` counts in rows. No outcome:
    equal weights.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    members = table.shape[1]
    row_weights = np.ones(len(table)) if counts is None else np.asarray(counts, dtype=np.float64)
    is_informative = (table > 0).any(axis=1) & np.isfinite(table).all(axis=1)
    table, row_weights = table[is_informative], row_weights[is_informative]
    weights: Floats = np.full(members, 1 / members)
    total = row_weights.sum() + shrink
    if not len(table) or total <= 0:
        return weights
    for _ in range(STEPS):
        shares = table * weights
        shares /= shares.sum(axis=1, keepdims=True)
        new_weights = (row_weights @ shares + shrink / members) / total
        change = float(np.abs(new_weights - weights).max())
        weights = new_weights
        if change < TOLERANCE:
            break
    return np.asarray(weights / weights.sum())


def blend_weights(predictions: Floats, true_values: Floats, shrink: float = PRIOR_ROWS) -> Floats:
    """The weights w [members] of a weighted mean of numbers.

    argmin over the simplex of  Σ_i (y_i − Σ_m w_m a_im)² + s v ‖w − 1 ÷ M‖²,  where v is the mean
    squared difference between a member and the members' mean, so that ``shrink`` = s counts as that
    many rows. ``predictions`` [n, members], ``true_values`` [n]. By the active-set method of
    non-negative least squares with Σ w = 1 (its exact steps, for at most a few members). No rows,
    or members that agree throughout: equal weights.
    """
    table, targets = np.asarray(predictions, np.float64), np.asarray(true_values, np.float64)
    members = table.shape[1]
    equal = np.full(members, 1 / members)
    if not len(table):
        return equal
    spread = float(((table - table.mean(axis=1, keepdims=True)) ** 2).mean())
    if spread <= 0:
        return equal
    # Since the weights sum to 1, centring on the targets does not change the solution.
    centred = table - targets[:, None]
    gram = centred.T @ centred + shrink * spread * np.eye(members)
    pull = shrink * spread * equal
    free = np.ones(members, dtype=bool)
    while True:
        weights = np.zeros(members)
        # argmin ½ wᵀ G w − pᵀ w with Σ w = 1.
        ones = np.ones((int(free.sum()), 1))
        system = np.block([[gram[np.ix_(free, free)], ones], [ones.T, np.zeros((1, 1))]])
        weights[free] = np.linalg.solve(system, np.append(pull[free], 1.0))[:-1]
        if (weights >= -1e-12).all():
            growing = _member_to_free(gram, pull, weights, free)
            if growing is None:
                return np.asarray(np.maximum(weights, 0) / np.maximum(weights, 0).sum())
            free[growing] = True
            continue
        free[int(np.argmin(np.where(free, weights, np.inf)))] = False


def _member_to_free(gram: Floats, pull: Floats, weights: Floats, free: np.ndarray) -> int | None:
    """A member of weight 0 that would lower the objective if it grew; ``None`` at the solution."""
    slope = gram @ weights - pull
    level = float(slope[free].mean())
    at_zero = np.flatnonzero(~free)
    if not len(at_zero):
        return None
    best = int(at_zero[np.argmin(slope[at_zero])])
    return best if slope[best] < level - 1e-9 * (1 + abs(level)) else None


def held_out_losses(
    fit: Callable[[Ints], Floats],
    losses: Callable[[Floats, Ints], Floats],
    units: Ints,
    seed: np.random.Generator,
    folds: int = FOLDS,
) -> Floats:
    """The loss of each row [n] with weights that were fitted on the rows of the other folds.

    ``fit`` gives the weights from the rows at these positions, ``losses`` the losses of rows with
    given weights; rows of one unit (``units`` [n], whole numbers from 0) stay in one fold. Fewer
    than two units: NaN throughout.
    """
    count = int(units.max(initial=-1)) + 1
    if count < 2:
        return np.full(len(units), np.nan)
    fold = seed.permutation(count)[units] % min(folds, count)
    result = np.empty(len(units))
    for number in np.unique(fold):
        inside = np.flatnonzero(fold == number)
        result[inside] = losses(fit(np.flatnonzero(fold != number)), inside)
    return result
