"""Learning-rate range test: the loss over rising learning rates, and which learning rate to use.

The change of the loss is smoothed over neighbouring updates (a Gaussian window, so that nothing
lags behind). While the learning rate is too low nothing changes; then the loss falls, reaches its
lowest point, and rises until it diverges (1506.01186).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats
from holdfast.core.wording import count_phrase

# In updates: a hundred of them have 14 per decade of learning rates.
WINDOW = 2.0
# A smaller fall is irrelevant, even if significant.
LEAST_FALL = 0.02
# Below this many standard errors a fall may be chance.
MIN_STANDARD_ERRORS = 4.0
# With fewer updates there is no curve; this many before a point show how the changes scatter.
LEAST, SCATTER_UPDATES = 10, 12


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The suggested learning ``rate``, or ``None`` with the reason; ``low`` and ``high`` bound the
    learning rates at which the loss falls, ``None`` if it does not. ``smoothed`` [n] is the loss at
    each learning rate."""

    rate: float | None
    low: float | None
    high: float | None
    smoothed: Floats
    because: str


def smoothed(values: Floats) -> Floats:
    """The mean around each value [n], with a Gaussian window of ``WINDOW`` updates."""
    values = np.asarray(values, dtype=np.float64)
    return np.asarray(_weights(len(values)) @ values)


def _weights(count: int) -> Floats:
    """The weight of each value [n] in each smoothed one [n, n]; rows add up to 1."""
    at = np.arange(count)
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / WINDOW) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def suggest(rates: Floats, losses: Floats, starts: Floats) -> Suggestion:
    """Which of the rising learning ``rates`` [n] to use, from the ``losses`` [n] of the rows that
    came after each, and the losses of the same rows at the start, ``starts`` [n].

    The learning rate at which the smoothed loss falls fastest in its logarithm, up to the one where
    it is lowest (1506.01186). ``low`` is where a tenth of the fall is reached, ``high`` where the
    loss is lowest. None is suggested if the fall is no larger than ``LEAST_FALL`` of the loss, or
    than ``MIN_STANDARD_ERRORS`` standard errors.
    """
    rates, starts = np.asarray(rates, dtype=np.float64), np.asarray(starts, dtype=np.float64)
    if len(rates) < LEAST:
        because = (
            f"not enough evidence: the loss diverged after {count_phrase(len(rates), 'update')}"
        )
        return Suggestion(None, None, None, np.asarray(losses, dtype=np.float64), because)
    level = float(starts.mean())
    # One diverging loss would lift its neighbours, which came before it.
    change = np.minimum(np.asarray(losses, dtype=np.float64) - starts, max(level, 1e-12))
    smoothed_change = smoothed(change)
    lowest = int(smoothed_change.argmin())
    # The standard error of the smoothed line there, from the residuals around it: for changes with
    # standard deviation σ a residual has σ √(1 − 2 w_ii + Σ w_ij²), the line σ √(Σ w_ij²).
    weights = _weights(len(smoothed_change))
    squares = (weights**2).sum(axis=1)
    scatter = (change - smoothed_change) / np.sqrt(1 - 2 * weights.diagonal() + squares)
    # The loss after the lowest point may have diverged.
    window = slice(max(0, lowest - SCATTER_UPDATES), lowest + 2)
    fall, error = (
        -float(smoothed_change[lowest]),
        float(np.sqrt(np.mean(scatter[window] ** 2) * squares[lowest])),
    )
    if lowest == 0 or fall < max(LEAST_FALL * level, MIN_STANDARD_ERRORS * error):
        because = (
            f"not enough evidence: the lowest loss is {abs(fall):.3g} "
            f"{'below' if fall >= 0 else 'above'} the loss of the same rows at the start "
            f"({level:.3g}; standard error {error:.2g}), so no learning rate clearly lowers it; "
            "use the default learning rate"
        )
        return Suggestion(None, None, None, level + smoothed_change, because)
    slopes = np.gradient(smoothed_change[: lowest + 1], np.log10(rates[: lowest + 1]))
    steepest = int(slopes.argmin())
    low, high = float(rates[int((smoothed_change <= -0.1 * fall).argmax())]), float(rates[lowest])
    ends = "rises after that" if lowest < len(rates) - 3 else "was still falling at the end"
    because = (
        f"the loss falls fastest around a learning rate of {rates[steepest]:.2g}, by "
        f"{-slopes[steepest]:.2g} per decade from {level:.3g}; at {high:.2g} it is lowest and "
        f"{ends}"
    )
    suggested = float(f"{rates[steepest]:.2g}")
    return Suggestion(suggested, min(low, suggested), high, level + smoothed_change, because)
