"""Two models on the same rows: better, equivalent within a margin, worse, or not settled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.know.compare.settle import rows_that_settle
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.paired import MCNEMAR_EXACT, newcombe
from holdfast.stats.student import by_groups, paired_t
from holdfast.stats.tango import tango

Verdict = Literal["better", "equivalent", "worse", "undecided"]
# A difference is claimed at 2.5 % on either side; "equivalent" by two one-sided tests at 5 %.
SIDE, EQUIVALENCE = 0.025, 0.05
FEWEST_GROUPS = 3
# Below that many rows the mean of values that are not −1, 0 or 1 is not near its law.
FEW_VALUES = 20


@dataclass(frozen=True, slots=True)
class PairedVerdict:
    """How the first model stands beside the second on ``n`` rows.

    ``value`` is first less second with limits ``low`` and ``high`` at 95 %; ``near`` its limits at
    90 %, by which "equivalent" goes (within ±``margin``); ``p_value`` is two-sided, of no
    difference. Of right and wrong answers ``only_first`` and ``only_second`` count the rows that
    one alone has right. ``rows`` in all would settle an undecided one. Undefined numbers are NaN,
    with ``why``.
    """

    verdict: Verdict
    value: float
    low: float
    high: float
    near: tuple[float, float]
    p_value: float
    margin: float
    n: int
    groups: int | None
    only_first: int | None
    only_second: int | None
    rows: int | None
    why: str | None = None

    @property
    def test(self) -> str:
        """The test that ``p_value`` is of."""
        if self.groups is not None:
            return "paired t-test of groups"
        return "paired t-test" if self.only_first is None else MCNEMAR_EXACT

    def to_json(self) -> dict[str, Any]:
        """The fields of ``compare --json`` that are numbers."""
        difference: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        difference["level"] = 1 - 2 * SIDE
        if self.why:
            difference["why"] = self.why
        discordant = {"only_a": self.only_first, "only_b": self.only_second}
        return {
            "verdict": self.verdict,
            "difference": difference,
            "rows_to_settle": self.rows,
            "margin": self.margin,
            "equivalence": {
                "low": self.near[0],
                "high": self.near[1],
                "level": 1 - 2 * EQUIVALENCE,
            },
            "p_value": self.p_value,
            "test": self.test,
            "n": self.n,
            "groups": self.groups,
            "discordant": None if self.only_first is None else discordant,
        }


def judge_pairs(gap: Floats, margin: float, groups: Any = None) -> PairedVerdict:
    """The verdict on the paired differences ``gap`` [n], first less second, larger being better.

    Right and wrong answers (every difference −1, 0 or 1) of single rows: better or worse by the
    exact sign test on the rows that one alone has right, one-sided at 2.5 % (so that equal models
    are parted in 5 % at most, and by far less where few rows differ); equivalent where Tango's
    score test with its correction refuses a difference of the margin on both sides at 5 %; the
    interval is Newcombe's, which is widened to 0 where the exact test does not refuse 0. Other
    differences, and rows in ``groups`` [n]: Student's t of the rows, or of the sums of groups about
    their share, at the same levels.

    A difference that is proven is "better" or "worse" even where it is smaller than the margin.
    """
    found = np.asarray(gap, dtype=np.float64)
    codes = None if groups is None else group_codes(groups, len(found))
    count = None if codes is None else int(codes.max(initial=-1)) + 1
    binary = bool(np.isin(found, (-1.0, 0.0, 1.0)).all())
    first, second = _counts(found) if binary else (None, None)
    why = _too_few(found, count, binary)
    if why is not None:
        value = float(found.mean()) if len(found) else math.nan
        nothing = math.nan, math.nan
        return PairedVerdict(
            verdict="undecided",
            value=value,
            low=math.nan,
            high=math.nan,
            near=nothing,
            p_value=math.nan,
            margin=margin,
            n=len(found),
            groups=count,
            only_first=first,
            only_second=second,
            rows=None,
            why=why,
        )
    if binary and codes is None:
        limits, near, p_value = _of_signs(*_counts(found), len(found))
    else:
        limits, near, p_value = _of_values(found, codes)
    verdict: Verdict = "undecided"
    if p_value <= 2 * SIDE and (limits[0] > 0 or limits[1] < 0):
        verdict = "better" if limits[0] > 0 else "worse"
    elif -margin < near[0] and near[1] < margin:
        verdict = "equivalent"
    rows = rows_that_settle(found, margin, codes) if verdict == "undecided" else None
    return PairedVerdict(
        verdict=verdict,
        value=float(found.mean()),
        low=limits[0],
        high=limits[1],
        near=near,
        p_value=p_value,
        margin=margin,
        n=len(found),
        groups=count,
        only_first=first,
        only_second=second,
        rows=rows,
    )


def _too_few(gap: Floats, groups: int | None, binary: bool) -> str | None:
    if not len(gap):
        return "there are no rows to compare"
    if not np.isfinite(gap).all():
        return "a row's number is not finite"
    if groups is not None and groups < FEWEST_GROUPS:
        return f"the rows are of {groups} group(s), which do not show how much groups differ"
    if not binary and groups is None and len(gap) < FEW_VALUES:
        return f"below {FEW_VALUES} rows the mean of such numbers has no interval to rely on"
    return None


def _counts(gap: Floats) -> tuple[int, int]:
    return int((gap == 1).sum()), int((gap == -1).sum())


def _of_signs(
    first: int, second: int, n: int
) -> tuple[tuple[float, float], tuple[float, float], float]:
    from scipy.special import bdtr

    least, total = min(first, second), first + second
    p_value = min(1.0, 2 * float(bdtr(least, total, 0.5))) if total else 1.0
    right = np.arange(n) < first
    other = (np.arange(n) >= first) & (np.arange(n) < total)
    low, high = newcombe(right, other, 1 - 2 * SIDE)
    if p_value > 2 * SIDE:
        low, high = min(low, 0.0), max(high, 0.0)
    return (low, high), tango(first, second, n, 1 - 2 * EQUIVALENCE), p_value


def _of_values(
    gap: Floats, codes: Ints | None
) -> tuple[tuple[float, float], tuple[float, float], float]:
    value, spread = float(gap.mean()), gap if codes is None else by_groups(gap, codes)
    nothing = np.zeros(len(spread))
    wide = paired_t(spread, nothing, 1 - 2 * SIDE)
    near = paired_t(spread, nothing, 1 - 2 * EQUIVALENCE)
    if wide.low == wide.high:
        # All alike shows how seldom another one can be, not that there is none.
        low, high = tango(0, 0, len(spread), 1 - 2 * EQUIVALENCE)
        return (value + low, value + high), (value + low, value + high), 1.0
    return (wide.low, wide.high), (near.low, near.high), wide.p_value
