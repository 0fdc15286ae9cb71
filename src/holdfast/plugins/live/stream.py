"""Two models compared on rows as they arrive: when to stop, valid at every row.

``PairStream`` is an immutable value: ``add`` returns another one, so that a service may store it as
a few numbers (``to_json``, ``of``) and continue after a restart. Sibling: ``verdict``, for a fixed
set of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.stats.paired_tests import Bools
from holdfast.stats.streams.rates import below_evidence, win_evidence

Verdict = Literal["better", "worse", "equivalent", "undecided"]
# e-values: better and worse are each reached by chance in at most 2.5 % of streams, so 5 % for
# both. Each side of "equivalent" has 5 %, since at most one of them can be wrong.
WIN_EVIDENCE, SIDE_EVIDENCE = 40.0, 20.0
ROWS_AT_ONCE = 20_000
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


@dataclass(frozen=True, slots=True)
class PairStream:
    """The evidence about two models after ``rows`` rows, of which only the first had ``wins``
    correct and only the second ``losses``.

    ``margin`` (a share, 0.01 is one point) is the difference that does not matter. ``peaks`` are
    the largest log e-values so far: the first is better, the second is, the first is better by less
    than the margin, the second is. ``decided_at`` is the row after which a verdict was first
    reached (1 for the first row); peaks never fall, so a verdict stays. ``futile_at`` is the row
    after which it was first shown that the first is not better by the margin: a test for
    superiority may stop there, a test for equivalence continues.
    """

    margin: float = 0.01
    rows: int = 0
    wins: int = 0
    losses: int = 0
    peaks: Peaks = (0.0, 0.0, 0.0, 0.0)
    decided: Verdict = "undecided"
    decided_at: int | None = None
    futile_at: int | None = None

    def add(self, first: Bools, second: Bools) -> PairStream:
        """The stream after more rows, in order: whether each model was correct, both [n]. Equals
        adding them one by one."""
        first_right, second_right = (
            np.atleast_1d(np.asarray(first, bool)),
            np.atleast_1d(np.asarray(second, bool)),
        )
        if first_right.shape != second_right.shape or first_right.ndim != 1:
            raise Defect(
                "rows of two models", "must be as many", (first_right.shape, second_right.shape)
            )
        stream = self
        for start in range(0, len(first_right), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            stream = stream._added(first_right[part], second_right[part])
        return stream

    def _added(self, first: Bools, second: Bools) -> PairStream:
        wins = self.wins + np.cumsum(first & ~second)
        losses = self.losses + np.cumsum(second & ~first)
        rows = self.rows + np.arange(1, len(first) + 1)
        peaks = pair_peaks(wins, losses, rows, self.margin, self.peaks)
        after = replace(
            self,
            rows=int(rows[-1]),
            wins=int(wins[-1]),
            losses=int(losses[-1]),
            peaks=tuple(peaks[-1].tolist()),
        )
        # Whether it is futile to wait for a gain of the margin [rows].
        futile = peaks[:, 2] >= math.log(SIDE_EVIDENCE)
        if self.futile_at is None and futile.any():
            after = replace(after, futile_at=int(rows[np.argmax(futile)]))
        return replace(after, **first_verdict(self.decided, peaks, rows, SIDE_EVIDENCE))

    @property
    def difference(self) -> float:
        """The first model's accuracy gain so far; NaN without rows."""
        return (self.wins - self.losses) / self.rows if self.rows else math.nan

    @property
    def evidence(self) -> dict[str, float]:
        """The largest e-value of each claim so far."""
        return e_values(self.peaks)

    @property
    def because(self) -> str:
        """The result so far, in a sentence."""
        counts_text = (
            f"of {self.rows} rows, {self.wins} are correct only for the first model, "
            f"{self.losses} only for the second"
        )
        points = f"{100 * self.margin:g} points"
        undecided = "inconclusive so far"
        if self.futile_at is not None:
            undecided = (
                f"the first model is not {points} better; equivalence is inconclusive so far"
            )
        sentences = {
            "better": "the first model is correct more often",
            "worse": "the second model is correct more often",
            "equivalent": f"neither model is {points} better than the other",
        }
        return f"{sentences.get(self.decided, undecided)} ({counts_text})"

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.decided,
            "decided_at": self.decided_at,
            "futile_at": self.futile_at,
            "rows": self.rows,
            "wins": self.wins,
            "losses": self.losses,
            "margin": self.margin,
            "peaks": list(self.peaks),
            "because": self.because,
        }

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> PairStream:
        """The stream from ``to_json``."""
        names = ("margin", "rows", "wins", "losses", "decided_at", "futile_at")
        plain = {name: stored[name] for name in names}
        return cls(**plain, peaks=tuple(stored["peaks"]), decided=stored["verdict"])
