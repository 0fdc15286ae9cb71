"""Is a mitigation worth more than flipping answers at random? (Fairea, ESEC/FSE 2021.)

Any gap can be made smaller by giving a share δ of the rows one and the same answer: of the gap
1 − δ is left, and the accuracy falls along a line to that of this answer alone. On 49 % of the
cases that the paper looked at, published mitigations lay below that line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.contract.predictions import Bools
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.stats.paired_tests import paired_t


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """A mitigated model beside the plain one on the same rows: their accuracies and gaps (how much
    was left out of account is ``flipped``, the δ that brings the plain gap to the mitigated one),
    the accuracy of the plain one after that (``line``) and ``gain`` over it, with its interval.

    ``verdict``: ``better`` than flipping, ``no better``, or ``undecided``; ``wider`` where the gap
    is not smaller at all."""

    accuracy: float
    accuracy_plain: float
    gap: float
    gap_plain: float
    flipped: float
    line: float
    gain: Estimate
    verdict: str

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "gain"} | {
            "gain": self.gain.to_json()
        }


def fairea(
    right: Bools, right_plain: Bools, labels: Ints, gap: float, gap_plain: float
) -> Tradeoff:
    """The trade-off on the same rows [n]. ``labels`` [n] are their classes, of which the commonest
    is what flipped rows are answered; gaps are at least 0.

    The gain of a row is its hit less what it would be after flipping, (1 − δ) · plain hit +
    δ · [label is the commonest]: expected values, so that no chance is drawn; Student's interval.
    """
    hits, plain = right.astype(np.float64), right_plain.astype(np.float64)
    commonest = (labels == np.bincount(labels).argmax()).astype(np.float64)
    flipped = 1.0 if not gap_plain else min(1.0, max(0.0, 1 - gap / gap_plain))
    line: Floats = (1 - flipped) * plain + flipped * commonest
    found = paired_t(hits, line)
    gain = Estimate(found.value, found.low, found.high)
    verdict = "undecided"
    if gap >= gap_plain:
        verdict = "wider"
    elif not math.isnan(found.low) and found.low > 0:
        verdict = "better"
    elif not math.isnan(found.high) and found.high <= 0:
        verdict = "no better"
    return Tradeoff(
        float(hits.mean()),
        float(plain.mean()),
        gap,
        gap_plain,
        flipped,
        float(line.mean()),
        gain,
        verdict,
    )
