"""The temperature that makes logits most honest, and the loss that is left after it.

Dividing logits by T changes confidence and nothing else (Guo et al., 1706.04599). The loss after
the best T measures knowing without confidence: *refinement* (Berta et al., 2501.19195).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.stats.stacking import held_out_losses

COLDEST = 0.01
HOTTEST = 100.0


def best_temperature(
    logits: Floats, labels: Ints, *, smoothing: float = 0.0
) -> tuple[float, float]:
    """The temperature that minimises the mean cross-entropy of ``logits / T``, and that loss.

    With b = 1/T, f(b) = mean(log Σ_c exp(b z_c) − b z_y) is convex in b; f′ = mean(E_p z − z_y)
    and f″ = mean(Var_p z). Newton's step is taken where it stays in the bracket, else bisection.

    Parameters
    ----------
    logits : [n, classes]; labels : [n], class indices.
    smoothing : pseudo-rows spread over all rows whose label is uniform over the classes; 1 keeps
        the temperature of a perfectly separated set moderate. It moves T alone: the loss returned
        is always the plain one at that T. 0 is the pure optimum, right for measuring refinement;
        use 1 for a temperature that will be saved.

    Returns
    -------
    (T, loss in nats). T lies in [``COLDEST``, ``HOTTEST``] = [0.01, 100]: where the rows are
    perfectly separated (T → 0) or the logits say nothing or mislead (T → ∞), the bound. No rows,
    or a logit that is not finite: (1, NaN).
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not scores.size or not np.isfinite(scores).all():
        return 1.0, math.nan
    # Exponentials of large logits overflow; a shift of a row changes no probability.
    scores = scores - scores.max(axis=1, keepdims=True)
    chosen = float(np.mean(scores[np.arange(len(scores)), labels]))
    # A pseudo-row's expected score is the mean over its classes; no row needs to be added.
    share = smoothing / (len(scores) + smoothing)
    target = (1 - share) * chosen + share * float(scores.mean())
    # The b where E_p z = target; E_p z rises with b.
    low, high, inverse = 1.0 / HOTTEST, 1.0 / COLDEST, 1.0
    # Bisection alone, which halves the bracket's logarithm, reaches the tolerance in 37 rounds.
    for _ in range(100):
        weights = np.exp(scores * inverse)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * scores).sum(axis=1)
        variance = (weights * scores**2).sum(axis=1) - mean**2
        slope, curvature = float(mean.mean()) - target, float(variance.mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else math.inf
        # A geometric mean, since temperatures differ by factors.
        following = step if low < step < high else math.sqrt(low * high)
        if abs(following - inverse) <= 1e-10 * inverse:
            break
        inverse = following
    return 1.0 / inverse, float(np.mean(losses_at(scores, labels, 1.0 / inverse)))


def losses_at(logits: Floats, labels: Ints, temperature: float) -> Floats:
    """Cross-entropy in nats of each row at a temperature, [n]; logits [n, classes]."""
    scores = np.asarray(logits, dtype=np.float64) / temperature
    scores = scores - scores.max(axis=1, keepdims=True)
    chosen = scores[np.arange(len(scores)), labels]
    return np.asarray(np.log(np.exp(scores).sum(axis=1)) - chosen)


def cross_fitted_losses(
    logits: Floats,
    labels: Ints,
    *,
    seed: np.random.Generator,
    groups: Ints | None = None,
    smoothing: float = 0.0,
) -> Floats:
    """Loss of each row [n] at the temperature fitted on the *other* folds, five of them.

    An honest number on the very rows that calibrate, where ``best_temperature`` is optimistic by
    about 1/2n nats. ``groups`` [n] (whole numbers from 0) stay within one fold. Fewer than two
    rows or groups: the raw losses, for there is nothing to fit on.
    """
    # Whole groups in one fold: a row of a group tells of the others.
    unit = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if unit.max(initial=-1) < 1:
        return losses_at(logits, labels, 1.0)

    def fit(rows: Ints) -> Floats:
        return np.array(best_temperature(logits[rows], labels[rows], smoothing=smoothing)[:1])

    def losses(temperature: Floats, rows: Ints) -> Floats:
        return losses_at(logits[rows], labels[rows], float(temperature[0]))

    return held_out_losses(fit, losses, unit, seed)


def recover_labels(logits: Floats, losses: Floats) -> npt.NDArray[np.int64]:
    """The labels [n] that explain ``losses`` [n] as the cross-entropy of ``logits`` [n, classes].

    The class whose loss is nearest; where two tie, their losses are equal at every temperature,
    so that either serves.
    """
    scores = np.asarray(logits, dtype=np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    each = np.log(np.exp(scores).sum(axis=1, keepdims=True)) - scores
    return np.asarray(np.abs(each - np.asarray(losses)[:, None]).argmin(axis=1), dtype=np.int64)
