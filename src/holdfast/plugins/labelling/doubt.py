"""How unsure a model is of rows, with what was labelled since taken into account."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Floats, Ints, log_sum_exp, softmax

# The inverse strength of the ridge penalty; chosen on seeds that no figure is from.
C = 10.0
STEPS = 60
LEAST_PROBABILITY = 1e-4


def doubt_of(probabilities: Floats) -> Floats:
    """How much a model doubts each row [n], in [0, 1]: 0 where one class is certain.

    Of two classes 1 − Σ p², the variance of the answer as a draw. Of more the squared nearness of
    the two likeliest, (1 − (p₁ − p₂))²: the variance is large almost everywhere there, and says
    little of where a boundary is (chosen on seeds that no figure is from).
    """
    if probabilities.shape[1] == 2:
        return np.asarray(1 - (probabilities**2).sum(axis=1))
    top = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray((1 - (top[:, 1] - top[:, 0])) ** 2)


def updated(vectors: Floats, labels: Ints, probabilities: Floats) -> Floats:
    """The probabilities [n, k] that follow from those served and what was labelled since.

    A logistic head on frozen vectors beside the served model: softmax(log p + W x), with the ridge
    penalty ‖W‖²/2C. Without labels it is the served model; where that knows nothing (all classes
    alike), an ordinary logistic regression.

    vectors [n, d] as ``scaled`` gives them; labels [n], −1 where unknown; probabilities [n, k].
    """
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        return probabilities
    offset = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    x = np.concatenate([vectors, np.ones((len(vectors), 1), vectors.dtype)], axis=1)
    weights = _fitted(x[known].astype(np.float64), labels[known], offset[known])
    return softmax(x @ weights.T.astype(x.dtype) + offset)


def scaled(vectors: Floats) -> Floats:
    """Vectors about their mean, of a mean squared length of 1: so that one penalty fits every
    model's [n, d]."""
    middle = vectors - vectors.mean(axis=0)
    length = float(np.sqrt((middle**2).sum(axis=1).mean()))
    return np.asarray(middle / max(length, 1e-12), dtype=np.float32)


def _fitted(x: Floats, labels: Ints, offset: Floats) -> Floats:
    from scipy.optimize import minimize

    shape = (offset.shape[1], x.shape[1])
    hot = np.zeros_like(offset, dtype=np.float64)
    hot[np.arange(len(labels)), labels] = 1

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        logits = x @ weights.T + offset
        sums = log_sum_exp(logits)
        slope = C * (np.exp(logits - sums[:, None]) - hot).T @ x + weights
        total = C * float((sums - (logits * hot).sum(axis=1)).sum()) + 0.5 * float(
            (weights**2).sum()
        )
        return total, slope.ravel()

    start = np.zeros(shape[0] * shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(found.x.reshape(shape))
