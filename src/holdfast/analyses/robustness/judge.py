"""What a perturbation costs: the same rows before and after, paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.stats.intervals import wilson, wilson_by_groups
from holdfast.stats.many import holm
from holdfast.stats.paired_tests import newcombe, paired_bootstrap

ALPHA = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Rows that a perturbation changed: what is bad about the answers ``before`` and ``after`` [n],
    which answers are other ones (``flipped`` [n]), and ``groups`` [n] where they exist."""

    before: Floats
    after: Floats
    flipped: npt.NDArray[np.bool_]
    groups: Ints | None = None

    @property
    def is_rate(self) -> bool:
        return bool(np.isin(np.concatenate([self.before, self.after]), (0.0, 1.0)).all())


def judged(pairs: Mapping[str, Pair], *, seed: int) -> dict[str, dict[str, Any]]:
    """For each perturbation the rows that it changed, what is bad before and after, the paired
    difference with its interval (Newcombe's of rates; by bootstrap of numbers and in groups), the
    share of flipped answers, and whether it is worse: one-sided p (McNemar's exact test, or the
    bootstrap), adjusted by Holm for all perturbations, at 5 %."""
    names = list(pairs)
    p_values = np.array([_p_value(pairs[name], seed, name) for name in names])
    adjusted = holm(p_values) if len(names) else p_values
    found = {}
    for name, p in zip(names, adjusted, strict=True):
        pair = pairs[name]
        difference = _difference(pair, seed, name)
        found[name] = {
            "n": len(pair.before),
            "before": _mean(pair.before),
            "after": _mean(pair.after),
            "difference": difference.to_json(),
            "flipped": _share(pair).to_json(),
            "p_value": float(p),
            "worse": bool(p <= ALPHA and (difference.value or 0.0) > 0),
        }
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _p_value(pair: Pair, seed: int, name: str) -> float:
    if not len(pair.before):
        return 1.0
    if pair.is_rate and pair.groups is None:
        # P(X ≥ rows that got worse), X ~ Binomial(all that changed, ½).
        from scipy.special import bdtrc

        worse = pair.after > pair.before
        better = pair.after < pair.before
        b, c = int(worse.sum()), int(better.sum())
        return 1.0 if b == 0 else float(bdtrc(b - 1, b + c, 0.5))
    above = _boot(pair, seed, name).above
    return 1.0 if math.isnan(above) else 1.0 - above


def _boot(pair: Pair, seed: int, name: str) -> Any:
    return paired_bootstrap(
        pair.after, pair.before, seed=generator(seed, "robustness", name), groups=pair.groups
    )


def _difference(pair: Pair, seed: int, name: str) -> Estimate:
    if not len(pair.before):
        return Estimate(None, why="no row was changed")
    value = float((pair.after - pair.before).mean())
    if pair.is_rate and pair.groups is None:
        return Estimate(value, *newcombe(pair.after > 0, pair.before > 0))
    made = _boot(pair, seed, name)
    if math.isnan(made.low):
        return Estimate(value, why="no interval: too few rows or groups")
    return Estimate(value, made.low, made.high)


def _share(pair: Pair) -> Estimate:
    if not len(pair.flipped):
        return Estimate(None, why="no row was changed")
    value = float(pair.flipped.mean())
    if pair.groups is None:
        return Estimate(value, *wilson(float(pair.flipped.sum()), len(pair.flipped)))
    codes = np.unique(pair.groups, return_inverse=True)[1].reshape(-1)
    low, high = wilson_by_groups(pair.flipped, codes)
    if math.isnan(low):
        return Estimate(value, why="no interval: all rows are of one group")
    return Estimate(value, low, high)


def same(one: object, other: object) -> bool:
    """Whether two answers are the same: numbers to one part in a million."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(one, Sequence) and not isinstance(one, str):
        return list(one) == list(other)  # type: ignore[call-overload, no-any-return]
    return one == other
