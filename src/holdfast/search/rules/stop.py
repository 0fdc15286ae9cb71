"""When a search has seen enough: the next trial would not pay for itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from holdfast.core.records import Floats
from holdfast.search.rules.shrinkage import WRONG, Shrunken, scores_of, shrunken

# What a trial that costs as much as the default must be expected to bring, in shares of the score;
# and how many trials are seen before that is asked. Chosen on the cheap arena.
PRICE, FEWEST = 0.001, 4


def end_now(
    losses: Mapping[str, Floats], costs: Mapping[str, float], default: str, *, price: float = PRICE
) -> str | None:
    """The reason to end a search, or ``None`` where the next trial is worth its cost.

    ``losses`` [n] of each trial in nats and ``costs`` as for ``winner``. A trial costs what trials
    have cost on average; its price is ``price`` times that over the default's cost. Ends at once
    where ``price`` is infinite, never where it is 0; the first four trials are always made.
    """
    if len(losses) - 1 < FEWEST:
        return None
    found = shrunken(scores_of(losses), default)
    gain = next_gain(found)
    others = [costs[key] for key in losses if key != default]
    asked = price * float(np.mean(others)) / costs[default]
    if gain >= asked:
        return None
    return (
        f"the next trial is expected to gain {100 * gain:.2f} points on unseen rows, and should "
        f"gain {100 * asked:.2f} for what it costs"
    )


def next_gain(found: Shrunken) -> float:
    """By how much one more random trial is expected to raise the expected score of the winner.

    A new setting has the true gain δ ~ N(μ, τ²), and is measured with the noise s² of those that
    were: what will be believed of it, μ + τ² (D − μ) ÷ (τ² + s²), is N(μ, σ²) with
    σ² = τ⁴ ÷ (τ² + s²). Above the best that is believed of any so far, b, that is worth
    σ (φ(z) + z Φ(z)), z = (μ − b) ÷ σ: the expected improvement (Jones and others 1998) of what is
    believed, not of what is measured, which luck improves for ever. Averaged over μ and τ as the
    trials showed them; a setting that goes wrong gains nothing.
    """
    from scipy.special import ndtr

    errors = found.errors[found.errors > 0]
    noise = float(np.median(errors)) ** 2 if len(errors) else 0.0
    spread = found.spreads**2 / np.sqrt(found.spreads**2 + noise)
    z = (found.centres - float(found.mean.max())) / spread
    worth = spread * (np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) + z * ndtr(z))
    return float((1 - WRONG) * (found.weights @ worth))
