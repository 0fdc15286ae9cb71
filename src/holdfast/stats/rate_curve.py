"""What a learning-rate range test shows: the loss over rates that rise, and which rate to take.

The change of the loss is smoothed over neighbouring updates (a Gaussian window, so that nothing
lags behind). While the rate is too low nothing changes; then the loss falls, reaches its lowest
point, and rises until it explodes (1506.01186).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats
from holdfast.core.wording import count_phrase

# In updates: at a hundred of them a decade of rates has 14.
WINDOW = 2.0
# A fall of less says nothing, however sure it is.
LEAST_FALL = 0.02
# Below this many standard errors a fall may be chance.
MIN_STANDARD_ERRORS = 4.0
# Fewer updates are no curve; so many before a point tell how the changes scatter.
LEAST, SCATTER_UPDATES = 10, 12


@dataclass(frozen=True, slots=True)
class Suggestion:
    """``rate`` to take, or ``None`` with the reason; ``low`` and ``high`` bound the rates at which
    the loss falls, ``None`` where it does not. ``smoothed`` [n] is the loss at each rate."""

    rate: float | None
    low: float | None
    high: float | None
    smoothed: Floats
    because: str


def smoothed(values: Floats) -> Floats:
    """Each value [n] as the mean of those around it, by a Gaussian window of ``WINDOW`` updates."""
    values = np.asarray(values, dtype=np.float64)
    return np.asarray(_weights(len(values)) @ values)


def _weights(count: int) -> Floats:
    """How much each value [n] has in each smoothed one [n, n]; rows add to 1."""
    at = np.arange(count)
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / WINDOW) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def suggest(rates: Floats, losses: Floats, starts: Floats) -> Suggestion:
    """Which of the rising ``rates`` [n] to take, from the ``losses`` [n] of the rows that came
    after each and what the same rows lost at the start, ``starts`` [n].

    The rate at which the smoothed loss falls fastest in the rates' logarithm, up to the rate where
    it is lowest (1506.01186). ``low`` is where a tenth of the fall is reached, ``high`` where the
    loss is lowest. None is suggested where the fall is no larger than ``LEAST_FALL`` of the loss,
    or than ``SURE`` standard errors.
    """
    rates, starts = np.asarray(rates, dtype=np.float64), np.asarray(starts, dtype=np.float64)
    if len(rates) < LEAST:
        because = (
            f"not enough evidence: the loss broke out after {count_phrase(len(rates), 'update')}"
        )
        return Suggestion(None, None, None, np.asarray(losses, dtype=np.float64), because)
    level = float(starts.mean())
    # One explosion would lift its neighbours, which came before it.
    change = np.minimum(np.asarray(losses, dtype=np.float64) - starts, max(level, 1e-12))
    smoothed_change = smoothed(change)
    lowest = int(smoothed_change.argmin())
    # The standard error of the smoothed line there, from the residuals around it: of changes with
    # the deviation σ a residual has σ √(1 − 2 w_ii + Σ w_ij²), the line σ √(Σ w_ij²).
    weights = _weights(len(smoothed_change))
    squares = (weights**2).sum(axis=1)
    scatter = (change - smoothed_change) / np.sqrt(1 - 2 * weights.diagonal() + squares)
    # What comes after the lowest point may have exploded.
    window = slice(max(0, lowest - SCATTER_UPDATES), lowest + 2)
    fall, error = (
        -float(smoothed_change[lowest]),
        float(np.sqrt(np.mean(scatter[window] ** 2) * squares[lowest])),
    )
    if lowest == 0 or fall < max(LEAST_FALL * level, MIN_STANDARD_ERRORS * error):
        because = (
            f"not enough evidence: at its lowest the loss is {abs(fall):.3g} "
            f"{'below' if fall >= 0 else 'above'} the {level:.3g} that "
            f"the same rows lost at the start, give or take {error:.2g}, and no rate moves it "
            "surely; take the rate of the table of defaults"
        )
        return Suggestion(None, None, None, level + smoothed_change, because)
    slopes = np.gradient(smoothed_change[: lowest + 1], np.log10(rates[: lowest + 1]))
    steepest = int(slopes.argmin())
    low, high = float(rates[int((smoothed_change <= -0.1 * fall).argmax())]), float(rates[lowest])
    ends = "rises from there on" if lowest < len(rates) - 3 else "was still falling at the end"
    because = (
        f"the loss falls fastest around a rate of {rates[steepest]:.2g}, by "
        f"{-slopes[steepest]:.2g} of {level:.3g} a decade; at {high:.2g} it is lowest and {ends}"
    )
    suggested = float(f"{rates[steepest]:.2g}")
    return Suggestion(suggested, min(low, suggested), high, level + smoothed_change, because)
