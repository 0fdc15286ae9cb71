"""What choosing among a run's looks adds to the score of the state that is chosen.

The lowest of several noisy means is on average lower than what it measures. How much is worked out
by drawing the validation rows again, with all looks of a row together (Efron 1983's optimism of a
rule; the looks of one run move alike, so that twenty of them are far from twenty chances): in each
draw the best look is chosen, and what it scores there is compared with what it scores on all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.core.records import Snapshot
from holdfast.core.seeds import generator
from holdfast.monitor.evidence import stacked_hits, validation_losses

RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Optimism:
    """By how much the chosen state looks better on the rows that chose it than it is, in the unit
    of ``metric`` (a share of right answers, or nats), with the 2.5 % and 97.5 % points of the
    draws; over ``looks`` looks at ``rows`` rows."""

    metric: Literal["accuracy", "loss"]
    value: float
    low: float
    high: float
    looks: int
    rows: int


def optimism_of(looks: Sequence[Snapshot], seed: int = 0) -> Optimism | None:
    """Of a choice among these looks, those of every branch, by the lowest mean loss after the best
    temperature; ``None`` with fewer than two looks or rows that are all numbers.

    The rule that a run uses keeps a later state unless it is worse: it chooses among fewer, so this
    is rather too much than too little.
    """
    finite = [one for one in looks if np.isfinite(one.valid_losses).all()]
    if len(finite) < 2 or finite[0].valid_losses.size < 2:
        return None
    losses, _ = validation_losses(finite)
    hits = stacked_hits([one.valid_correct for one in finite])
    n, rng = len(losses), generator(seed, "optimism")
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    drawn = weights @ losses
    chosen, draws = drawn.argmin(axis=1), np.arange(RESAMPLES)
    if hits is None:
        gaps = losses.mean(axis=0)[chosen] - drawn[draws, chosen]
    else:
        right = hits.astype(np.float64)
        gaps = (weights @ right)[draws, chosen] - right.mean(axis=0)[chosen]
    low, high = np.quantile(gaps, [0.025, 0.975])
    name: Literal["accuracy", "loss"] = "loss" if hits is None else "accuracy"
    return Optimism(name, float(gaps.mean()), float(low), float(high), len(looks), n)
