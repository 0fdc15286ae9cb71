"""The evidence about two models on rows as they arrive, valid at every row; ``shadow`` and ``arms``
use it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.stats.streams.rates import below_evidence, win_evidence

Verdict = Literal["better", "worse", "equivalent", "undecided"]
# e-values: better and worse are each reached by chance in at most 2.5 % of streams, so 5 % for
# both. Each side of "equivalent" has 5 %, since at most one of them can be wrong.
WIN_EVIDENCE, SIDE_EVIDENCE = 40.0, 20.0
CLAIMS = ("better", "worse", "less_than_margin_better", "less_than_margin_worse")
# The largest log e-value so far of each claim.
Peaks = tuple[float, float, float, float]


def running_peaks(logs: Floats, before: Peaks) -> Floats:
    """The largest log e-values so far [rows, 4]: of each row's, and of ``before``."""
    result: Floats = np.maximum.accumulate(np.maximum(logs, np.asarray(before)), axis=0)
    return result


def pair_peaks(
    wins: Ints, losses: Ints, counts: Ints, margin: float, before: Peaks, *stakes: Floats
) -> Floats:
    """The largest log e-values so far [rows, 4] of the four claims about a pair of models, after
    ``wins`` and ``losses`` of ``counts`` rows, all [rows]."""
    logs = [
        win_evidence(wins, losses),
        win_evidence(losses, wins),
        below_evidence(wins, losses, counts, margin, *stakes),
        below_evidence(losses, wins, counts, margin, *stakes),
    ]
    return running_peaks(np.column_stack(logs), before)


def first_verdict(
    decided: Verdict, peaks: Floats, counts: Ints | Floats, side_evidence: float
) -> dict[str, Any]:
    """``decided`` and ``decided_at`` by the peaks [rows, 4] so far, if a verdict is now reached for
    the first time, after the given ``counts`` [rows]; else empty. ``side_evidence`` is the evidence
    that each side of "equivalent" needs."""
    both = (peaks[:, 2] >= math.log(side_evidence)) & (peaks[:, 3] >= math.log(side_evidence))
    claims = [peaks[:, 0] >= math.log(WIN_EVIDENCE), peaks[:, 1] >= math.log(WIN_EVIDENCE), both]
    verdicts = np.select(claims, ["better", "worse", "equivalent"], "undecided")
    has_verdict = verdicts != "undecided"
    if decided != "undecided" or not has_verdict.any():
        return {}
    at = int(np.argmax(has_verdict))
    return {"decided": verdicts[at].item(), "decided_at": int(counts[at])}


def e_values(peaks: Peaks) -> dict[str, float]:
    """The largest e-value of each claim so far."""
    # A float64 overflows beyond about e⁷⁰⁰.
    return {name: math.exp(min(peak, 700.0)) for name, peak in zip(CLAIMS, peaks, strict=True)}
