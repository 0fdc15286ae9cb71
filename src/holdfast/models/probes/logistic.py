"""The minimum of a penalised logistic loss, by L-BFGS: multinomial, or binary for each label.

A table [outputs, D + 1] holds the weights and, last, the unpenalised bias of each output. It
minimises the loss of scikit-learn's ``LogisticRegression``, without its import, which takes a
second or two, and its checks at every fit, which take most of the time of such a small fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints, log_sum_exp
from holdfast.stats.threads import threads_for

Array = npt.NDArray[np.float64]
# Of the relative fall of the loss in one step, in units of float64's resolution.
RESOLUTION = 64.0


def fit_softmax(
    x: Array,
    y: Ints,
    c: float,
    first: Array,
    *,
    tolerance: float,
    steps: int,
    weights: Array | None = None,
) -> Array:
    """The table [C, D + 1] that minimises the mean over the rows of −log softmax(x·w + b)[y] plus
    ‖w‖² ÷ (2 C n), from the table ``first`` on, until no component of the gradient exceeds
    ``tolerance``.

    x [n, D]; y [n], indices of classes. Of two classes w is the difference of their weights. A fit
    at a weak penalty may end at ``steps``: it is then near enough for comparing losses. With
    ``weights`` [n], at least 0, each row's loss counts so often, and n is their sum: a row of
    weight 2 is the row twice.
    """
    if len(first) == 2:
        halves, ones = first[1:] - first[:1], (y == 1)[:, None]
        single = fit_sigmoids(x, ones, c, halves, tolerance=tolerance, steps=steps, weights=weights)
        return np.concatenate([-single, single]) / 2
    rows = np.arange(len(y))
    n = len(y) if weights is None else float(weights.sum())

    def value(flat: Array) -> tuple[float, Array]:
        table = flat.reshape(first.shape)
        weight, logits = table[:, :-1], logits_of(table, x)
        sums = log_sum_exp(logits)
        gap = np.exp(logits - sums[:, None])
        gap[rows, y] -= 1
        if weights is None:
            loss = sums.sum() - logits[rows, y].sum()
        else:
            loss = ((sums - logits[rows, y]) * weights).sum()
            gap *= weights[:, None]
        loss += (weight**2).sum() / (2 * c)
        slope = np.column_stack([gap.T @ x + weight / c, gap.sum(axis=0)])
        return float(loss) / n, slope.reshape(-1) / n

    return _minimize(value, first, tolerance, steps, x.size)


def fit_sigmoids(
    x: Array,
    y: Floats,
    c: float,
    first: Array,
    *,
    tolerance: float,
    steps: int,
    weights: Array | None = None,
) -> Array:
    """The table [L, D + 1] that minimises the sum over labels of the mean of −log p over the rows
    plus ‖w‖² ÷ (2 C n), p the sigmoid of x·w + b or 1 less it. y [n, L] holds 0 and 1; ``weights``
    [n] as in ``fit_softmax``."""
    from scipy.special import expit

    targets = np.asarray(y, dtype=np.float64)
    n = len(y) if weights is None else float(weights.sum())

    def value(flat: Array) -> tuple[float, Array]:
        table = flat.reshape(first.shape)
        weight, logits = table[:, :-1], logits_of(table, x)
        losses, gap = _sigmoid_losses(logits, targets), expit(logits) - targets
        if weights is not None:
            losses, gap = losses * weights[:, None], gap * weights[:, None]
        loss = losses.sum() + (weight**2).sum() / (2 * c)
        slope = np.column_stack([gap.T @ x + weight / c, gap.sum(axis=0)])
        return float(loss) / n, slope.reshape(-1) / n

    return _minimize(value, first, tolerance, steps, x.size)


def first_softmax(x: Array, y: Ints) -> Array:
    """A table [C, D + 1] that predicts the smoothed class frequencies."""
    # Half a row more of each class: none has a frequency of 0.
    counts = np.bincount(y) + 0.5
    table = np.zeros((len(counts), x.shape[1] + 1))
    table[:, -1] = np.log(counts) - np.log(counts).mean()
    return table


def logits_of(table: Array, x: Array) -> Array:
    """x·w + b, [n, outputs]."""
    return np.asarray(x @ table[:, :-1].T + table[:, -1])


def softmax_losses(logits: Array, y: Ints) -> Array:
    """−log softmax(logits)[y] of each row [n], in nats."""
    return np.asarray(log_sum_exp(logits) - logits[np.arange(len(y)), y])


def sigmoid_losses(table: Array, x: Array, y: Floats) -> Array:
    """Binary cross-entropy of each row and label, [n, L], in nats."""
    return _sigmoid_losses(logits_of(table, x), np.asarray(y, dtype=np.float64))


def _sigmoid_losses(logits: Array, y: Array) -> Array:
    # log(1 + e^z) without overflow.
    return np.asarray(np.logaddexp(0, logits) - y * logits)


def _minimize(
    value: Callable[[Array], tuple[float, Array]],
    first: Array,
    tolerance: float,
    steps: int,
    size: int,
) -> Array:
    from scipy.optimize import minimize

    with threads_for(size):
        solution = minimize(
            value,
            first.reshape(-1),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "gtol": tolerance, "ftol": RESOLUTION * np.finfo(float).eps},
        )
    return np.asarray(solution.x.reshape(first.shape))
