"""Whether a map of a row is faithful to the model: the model's score must fall faster when units
are removed in the map's order than in a random order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.analyses.explain.masking import MaskedScore
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints

# Up to this number every set of units is scored: both limits are exact, and orders cost nothing.
MAX_EXACT_UNITS = 8
POINTS = 8
RANDOM_ORDERS, RANDOM_ORDERS_EXACT = 19, 999
BEAM_WIDTH, CANDIDATES = 2, 8
LEVEL = 0.05
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class FaithfulnessScores:
    """How faithful a map is.

    ``aopc`` is the mean fall of the score over the points of the curve, ``naopc`` in [0, 1] the
    same scaled between the ``low`` and the ``high`` that any order reaches; ``naopc_random`` is the
    mean of the random orders, ``sufficiency`` that of the reversed map (low is good). ``None`` if
    all orders are equal. ``p`` is the share of orders, the map's own included, that fall as fast as
    the map's; ``least_p`` is the smallest p possible for this row.
    """

    aopc: float
    low: float
    high: float
    naopc: float | None
    naopc_random: float | None
    sufficiency: float | None
    p: float
    least_p: float
    orders: int
    scores: Floats

    @property
    def better(self) -> bool:
        """Whether the map is better than random orders at 5 %."""
        return self.p <= LEVEL


def curve_points(units: int) -> Ints:
    """How many units are removed at each point of the curve, ascending, all of them at the last.
    The first ones are counted one by one, since readers look at these."""
    if units <= POINTS:
        return np.arange(1, units + 1)
    return np.unique(np.geomspace(1, units, POINTS).round().astype(np.int64))


def curves(masked_score: MaskedScore, orders: Sequence[Ints], points: Ints) -> Floats:
    """The scores [orders, points] of the row without the first units of each order."""
    masks = np.ones((len(orders), len(points), masked_score.units), dtype=bool)
    for line, order in zip(masks, orders, strict=True):
        for place, n_removed in enumerate(points):
            line[place, order[:n_removed]] = False
    return masked_score(masks.reshape(-1, masked_score.units)).reshape(len(orders), len(points))


def faithfulness(
    masked_score: MaskedScore, maps: Sequence[Floats], rng: np.random.Generator
) -> tuple[FaithfulnessScores, ...]:
    """Score each of the ``maps`` [units] of one row against the same random orders and limits.

        AOPC(order) = mean over the points k of [score(row) − score(row without its first k units)]
        NAOPC = (AOPC − low) / (high − low)                              (arXiv 2408.08137)

    ``low`` and ``high`` are exact up to ``MAX_EXACT_UNITS`` units; beyond, a beam search finds
    them, so the true limits may lie further out. The test is exact: if the map's order were random,
    each rank among the ``RANDOM_ORDERS`` orders would be equally likely (ties count against the
    map).
    """
    units = masked_score.units
    points = curve_points(units)
    small = units <= MAX_EXACT_UNITS
    if small:
        # Scored in one batch, and cached from here on.
        masked_score(_all_sets(units))
    full_score = masked_score.full
    draws = RANDOM_ORDERS_EXACT if small else RANDOM_ORDERS
    orders = [order_of(values) for values in maps] + [order_of(-values) for values in maps]
    orders += [rng.permutation(units) for _ in range(draws)]
    lines = curves(masked_score, orders, points)
    falls = full_score - lines.mean(axis=1)
    map_falls, reversed_falls, random = np.split(falls, [len(maps), 2 * len(maps)])
    low, high = (
        _all_limits(masked_score, units) if small else _beam_limits(masked_score, maps, points, rng)
    )
    low, high = (
        min(low, *map_falls, *reversed_falls, *random),
        max(high, *map_falls, *reversed_falls, *random),
    )
    span = high - low

    def normalize(value: float) -> float | None:
        return (value - low) / span if span > _SAME else None

    possible = min(draws + 1, math.factorial(min(units, 12)))
    scores = []
    for line, map_fall, reversed_fall in zip(lines, map_falls, reversed_falls, strict=False):
        n_as_fast = int((random >= map_fall - _SAME * max(1.0, abs(map_fall))).sum())
        p = (1 + n_as_fast) / (draws + 1)
        scores.append(
            FaithfulnessScores(
                aopc=float(map_fall),
                low=low,
                high=high,
                naopc=normalize(map_fall),
                naopc_random=normalize(float(random.mean())),
                sufficiency=normalize(reversed_fall),
                p=p,
                least_p=1 / possible,
                orders=draws,
                scores=line,
            )
        )
    return tuple(scores)


def order_of(values: Floats) -> Ints:
    """Units from the largest value to the smallest; ties in the order of the text."""
    return np.argsort(-np.asarray(values), kind="stable")


def _all_sets(units: int) -> Bools:
    codes = np.arange(1 << units)[:, None] >> np.arange(units)[None, :]
    return np.asarray(codes & 1, dtype=bool)


def _all_limits(masked_score: MaskedScore, units: int) -> tuple[float, float]:
    """The smallest and the largest AOPC of all orders: the best path through all sets of units,
    from the full row to the empty one, removing one unit at a time."""
    masks = _all_sets(units)
    fall = masked_score.full - masked_score(masks)
    least, most = np.zeros(len(masks)), np.zeros(len(masks))
    # A set is reached from sets with one unit more, which have larger codes.
    for code in range(len(masks) - 2, -1, -1):
        above = [code | (1 << unit) for unit in range(units) if not code >> unit & 1]
        least[code] = fall[code] + least[above].min()
        most[code] = fall[code] + most[above].max()
    return float(least[0] / units), float(most[0] / units)


def _beam_limits(
    masked_score: MaskedScore, maps: Sequence[Floats], points: Ints, rng: np.random.Generator
) -> tuple[float, float]:
    full_score = masked_score.full
    ends = []
    for sign in (-1.0, 1.0):
        beam: list[tuple[float, Bools]] = [(0.0, np.ones(masked_score.units, dtype=bool))]
        for n_more in np.diff(points, prepend=0):
            extended = [
                (total, mask)
                for total, left in beam
                for mask in _extend(left, int(n_more), maps, sign, rng)
            ]
            masks = np.unique(np.stack([mask for _, mask in extended]), axis=0)
            falls = dict(
                zip(map(bytes, masks), sign * (full_score - masked_score(masks)), strict=True)
            )
            best: dict[bytes, tuple[float, Bools]] = {}
            for total, mask in extended:
                reached = total + falls[bytes(mask)]
                if bytes(mask) not in best or reached > best[bytes(mask)][0]:
                    best[bytes(mask)] = (reached, mask)
            beam = sorted(best.values(), key=lambda one: -one[0])[:BEAM_WIDTH]
        ends.append(sign * beam[0][0] / len(points))
    return ends[0], ends[1]


def _extend(
    keep: Bools, n_more: int, maps: Sequence[Floats], sign: float, rng: np.random.Generator
) -> list[Bools]:
    """Ways to remove ``n_more`` of the remaining units: those that the maps rank first, and some
    random ones if several are removed together."""
    remaining = np.flatnonzero(keep)
    ranked = [
        remaining[np.argsort(-sign * np.asarray(values)[remaining], kind="stable")]
        for values in maps
    ]
    if n_more == 1:
        # Alternate between the maps, each unit once.
        turns = dict.fromkeys(itertools.chain.from_iterable(zip(*ranked, strict=True)))
        removals = [np.array([unit]) for unit in list(turns)[:CANDIDATES]]
    else:
        removals = [line[:n_more] for line in ranked]
        removals += [rng.choice(remaining, n_more, replace=False) for _ in range(2)]
    masks = []
    for units in removals:
        mask = keep.copy()
        mask[units] = False
        masks.append(mask)
    return masks


def joint_p(faithful: Sequence[FaithfulnessScores]) -> float | None:
    """Test whether the maps of several rows together are better than random orders: the probability
    of such a small sum of p-values if each map's order were random. Exact, except that ties make it
    larger. ``None`` without rows."""
    if not faithful:
        return None
    grid = math.lcm(*(one.orders + 1 for one in faithful))
    # One convolution per row: the distribution of a sum of uniform ranks.
    length = grid * len(faithful) + 1
    spectrum = np.ones(length // 2 + 1, dtype=complex)
    for orders in {one.orders for one in faithful}:
        single = np.zeros(length)
        single[np.arange(1, orders + 2) * (grid // (orders + 1))] = 1 / (orders + 1)
        spectrum *= np.fft.rfft(single) ** sum(one.orders == orders for one in faithful)
    probabilities = np.fft.irfft(spectrum, length)
    observed = round(sum(one.p for one in faithful) * grid)
    return float(np.clip(probabilities[: observed + 1].sum(), 0.0, 1.0))


def agreement(first: Floats, second: Floats) -> float | None:
    """Spearman's rank correlation of two maps; ``None`` if one of them is constant."""
    from holdfast.stats.auc import average_ranks

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(average_ranks(first), average_ranks(second))[0, 1])
