"""Whether the members and the others differ in themselves: a classifier that never sees the model.

Where it tells them apart, an attack may do so without any memory being involved (2406.16201), so
nothing can be concluded from one.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.know.memory.membership import FEWEST, LEVEL, as_estimate
from holdfast.models.probe import fit_probe, stratified_folds
from holdfast.stats.auc import delong
from holdfast.stats.intervals import normal_quantile

FOLDS = 5
# The inverse penalty: sets of one kind are told apart by little, which a weak one overfits.
PENALTY = 0.03
WIDTH = 64


def blind_area(members: Floats, others: Floats, seed: int, groups: Ints | None = None) -> Estimate:
    """The area under the ROC curve by which a logistic regression on the rows alone, each judged by
    a fit without it, tells ``members`` [n, d] from ``others`` [m, d].

    Its interval is √2 times DeLong's in its quantile, since scores of different folds share the
    rows of their fits (measured for the same test in the audit: a deviation of 1.39 errors).
    ``groups`` [n + m]: rows of one group are judged by one fit.
    """
    few = min(len(members), len(others))
    if few < FEWEST:
        return Estimate(None, why=f"one set has {few} rows; {FEWEST} are needed")
    x = np.concatenate([members, others])
    y = np.repeat([1, 0], [len(members), len(others)])
    folds = stratified_folds(y, FOLDS, seed)
    if groups is not None:
        # A group goes where its first row went.
        _, first, code = np.unique(groups, return_index=True, return_inverse=True)
        folds = folds[first][code]
    scores = np.zeros(len(y))
    for fold in range(FOLDS):
        held = folds == fold
        if not held.any() or len(np.unique(y[~held])) < 2:
            continue
        logits = fit_probe(x[~held], y[~held], classes=2, seed=seed, c=PENALTY).logits(x[held])
        scores[held] = logits[:, 1] - logits[:, 0]
    wider = 2 * NormalDist().cdf(math.sqrt(2) * normal_quantile(LEVEL)) - 1
    return as_estimate(delong(y == 1, scores, wider), LEVEL)


def differs(blind: Estimate) -> bool:
    """Whether the two sets are told apart without the model."""
    return blind.low is not None and blind.low > 0.5
