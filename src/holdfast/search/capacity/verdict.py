"""Is the model larger than the rows need? What the answers of its sizes to the same rows say, as a
verdict and in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.analyses.compare.verdict import PairedVerdict, judge_pairs
from holdfast.core.records import Floats, Ints
from holdfast.search.capacity.sizes import Cost, Size
from holdfast.stats.paired_tests import by_groups

Answer = Literal["oversized", "all_needed", "too_small", "undecided"]

WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class SizeStanding:
    """How one size stands beside the whole model on the same rows: ``found`` is size less whole
    (more is better), ``likely`` the difference that is to be expected once the other sizes and its
    own noise are counted in."""

    key: str
    found: PairedVerdict
    likely: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """The ``answer``, the size that is ``chosen`` (its key), and how each other one stands."""

    answer: Answer
    chosen: str
    standings: tuple[SizeStanding, ...]
    margin: float
    n: int

    def of(self, key: str) -> SizeStanding | None:
        """How this size stands; ``None`` for the whole model."""
        return next((one for one in self.standings if one.key == key), None)


def judge_sizes(
    whole: Floats,
    others: Mapping[str, Floats],
    large: Mapping[str, float],
    chains: Sequence[Sequence[str]],
    margin: float,
    units: Ints | None = None,
    label: str | None = None,
) -> Capacity:
    """``whole`` [n] is how good the whole model's answer to each row is (more is better),
    ``others`` that of each smaller size by its key, ``large`` how large each is; along each of the
    ``chains`` (the largest first) the quality to be expected does not rise.

    A size does as well where it is proven not to be worse by the margin (``judge_pairs``:
    equivalent, or better). *oversized*: some size does; the smallest such one is chosen.
    *all_needed*: none does, and the largest smaller one is proven worse; *too_small* where the
    whole model underfits besides (the ``label`` of its verdict). *undecided*: the rows cannot tell;
    then the smallest size is chosen whose likely difference lies within the margin and that is not
    proven worse, since what cannot be told apart is not worth its price. Rows of one of the
    ``units`` [n] (a group, copies) are no evidence of their own; without units each row is.

    The likely difference d: the means along a chain are made monotone (least squares, pool adjacent
    violators), and each is drawn towards 0 by its noise, d · max(0, 1 − se² ÷ d²) (the positive
    part of James and Stein 1961).
    """
    judged = {key: judge_pairs(one - whole, margin, units) for key, one in others.items()}
    likely: dict[str, float] = {}
    for chain in chains:
        keys = [key for key in chain if key in others]
        means = monotone([judged[key].value for key in keys])
        for key, mean in zip(keys, means, strict=True):
            likely[key] = drawn(mean, _error(others[key] - whole, units))
    standings = tuple(SizeStanding(key, judged[key], likely[key]) for key in likely)

    def smallest(keys: Sequence[str]) -> str:
        return min(keys, key=lambda key: (large[key], -likely[key]))

    well = [key for key in likely if judged[key].verdict in ("equivalent", "better")]
    worse = {key for key in likely if judged[key].verdict == "worse"}
    n = len(whole)
    if well:
        return Capacity("oversized", smallest(well), standings, margin, n)
    if likely and max(likely, key=lambda key: large[key]) in worse:
        answer: Answer = "too_small" if label == "underfit" else "all_needed"
        return Capacity(answer, WHOLE, standings, margin, n)
    fits = [key for key in likely if likely[key] >= -margin and key not in worse]
    return Capacity("undecided", smallest(fits) if fits else WHOLE, standings, margin, n)


def monotone(values: Sequence[float]) -> list[float]:
    """The nearest sequence that does not rise, in squares (pool adjacent violators)."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, size = value, 1
        while blocks and blocks[-1][0] < mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    return [mean for mean, size in blocks for _ in range(size)]


def drawn(value: float, error: float) -> float:
    """A difference less what its standard error makes of nothing."""
    if value == 0 or not np.isfinite(error):
        return 0.0
    return value * max(0.0, 1 - (error / value) ** 2)


def _error(gap: Floats, units: Ints | None) -> float:
    gap = gap if units is None else by_groups(gap, units)
    return float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else float("inf")


def sentence(
    found: Capacity, sizes: Sequence[Size], costs: Mapping[str, Cost], by_rights: bool
) -> str:
    """The answer in one sentence, with its numbers."""
    named = {size.key: size for size in sizes}
    kept = found.of(found.chosen)
    if found.answer == "oversized":
        assert kept is not None
        do = "do" if (named[kept.key].blocks or 0) > 1 else "does"
        well = "better" if kept.found.verdict == "better" else "as well"
        gap, speed = _gap(kept, by_rights), _speed(costs, kept.key)
        return f"oversized: {named[kept.key].name} {do} {well} ({gap}), {speed}"
    if found.answer in ("all_needed", "too_small"):
        near = max(found.standings, key=lambda one: named[one.key].large)
        lost = f"with {named[near.key].name} it is worse ({_gap(near, by_rights)})"
        if found.answer == "too_small":
            return f"too small: {lost}, and the whole model underfits; a larger one may do better"
        return f"not oversized: {lost}; whether a larger model does better was not tried"
    unknown = f"cannot be told on {found.n} rows whether the model is oversized"
    if kept is None:
        nearest = max(found.standings, key=lambda one: one.likely, default=None)
        seen = f" ({named[nearest.key].name}: {_gap(nearest, by_rights)})" if nearest else ""
        return f"{unknown}{seen}; the whole is kept, for each smaller size is likely worse"
    gap, speed = _gap(kept, by_rights), _speed(costs, kept.key)
    return f"{unknown}; kept as the cheaper choice: {named[kept.key].name} ({gap}), {speed}"


def _gap(one: SizeStanding, by_rights: bool) -> str:
    found, times = one.found, 100.0 if by_rights else -1.0
    unit = " points" if by_rights else " of the loss"
    ends = sorted((found.low * times, found.high * times))
    return f"{_signed(found.value * times)}{unit}, {_signed(ends[0])} to {_signed(ends[1])}"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−") if value == value else "unknown"


def _speed(costs: Mapping[str, Cost], key: str) -> str:
    times = costs[WHOLE].latency_ms / costs[key].latency_ms
    return f"{times:.1f} times as fast"
