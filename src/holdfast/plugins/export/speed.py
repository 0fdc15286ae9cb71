"""How long the same rows take in each engine, on this machine, now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats

LEAST, MOST = 7, 41
# Seconds that the repeats of one batch may take, over all engines.
BUDGET = 8.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each repeat by engine, [repeats] each; the engines took turns, so the same place
    in two of them is one moment of the machine."""

    batch: int
    seconds: Mapping[str, Floats]

    def median_ms(self, name: str) -> float:
        """Milliseconds a row: the median over the repeats ÷ the rows of a batch."""
        return 1000 * float(np.median(self.seconds[name])) / self.batch

    def ratio(self, name: str, base: str) -> tuple[float, float, float]:
        """The median of the time of ``name`` ÷ that of ``base`` in the same turn, and an interval
        of it: the order statistics between which the median lies 95 % of the time, at least."""
        from scipy.stats import binom

        ratios = np.sort(self.seconds[name] / self.seconds[base])
        n = len(ratios)
        # The greatest k with P(fewer than k of n lie below the median) at most 2.5 %; from 0 on.
        cut = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
        return float(np.median(ratios)), float(ratios[cut]), float(ratios[n - 1 - cut])


def measure(
    batch: int,
    engines: Mapping[str, Callable[[], object]],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Ask each engine in turn, one unmeasured turn first; as often as the budget allows."""
    started = clock()
    for ask in engines.values():
        ask()
    turn = max(clock() - started, 1e-9)
    repeats = int(np.clip(BUDGET / turn, LEAST, MOST))
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, ask in engines.items():
            before = clock()
            ask()
            seconds[name].append(clock() - before)
    return Times(batch, {name: np.asarray(found) for name, found in seconds.items()})


def faster(times: Sequence[Times], name: str, base: str) -> tuple[bool, str]:
    """Whether ``name`` is faster than ``base``: surely at the first batch, and not surely slower at
    any other; with the ratios in words."""
    said, surely = [], True
    for place, one in enumerate(times):
        value, low, high = one.ratio(name, base)
        said.append(f"{1 / value:.1f} times as fast at batch {one.batch}")
        surely = surely and (high < 1 if place == 0 else low <= 1)
    return surely, " and ".join(said)
