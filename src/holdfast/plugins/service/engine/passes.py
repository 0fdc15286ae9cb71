"""Rows of many lengths → passes through the model, each padded to its longest row.

A pass costs as much as ``overhead`` tokens before it reads any, and then every place it has, filled
or not. Few passes pad much, many begin often: what costs least in all is found exactly.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence


def passes(lengths: Sequence[int], overhead: float) -> list[list[int]]:
    """The places of the rows [n] of each pass, the longest rows first.

    Over the different lengths l₁ < … < l_m, with n_i rows each, the least cost of the first j is
    C(j) = min over i < j of C(i) + overhead + l_j · (n_{i+1} + … + n_j), since of rows in one pass
    only neighbours in length need be looked at.
    """
    # In plain Python: of so few rows NumPy costs more than it saves, most of all the lock of the
    # interpreter, which it gives away and has to wait for.
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    counts = Counter(lengths)
    widths = sorted(counts)
    ends = [0, *itertools.accumulate(counts[width] for width in widths)]
    best, begun = [0.0], [0]
    for j, width in enumerate(widths, 1):
        costs = [best[i] + overhead + width * (ends[j] - ends[i]) for i in range(j)]
        begun.append(min(range(j), key=costs.__getitem__))
        best.append(costs[begun[j]])
    made: list[list[int]] = []
    j = len(widths)
    while j > 0:
        i = begun[j]
        made.append(order[ends[i] : ends[j]])
        j = i
    return made
