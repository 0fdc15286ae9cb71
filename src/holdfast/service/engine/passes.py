"""Rows of many lengths → passes through the model, each padded to its longest row.

A pass costs as much as ``overhead`` tokens before it reads any, and then every place it has, filled
or not. Few passes pad much, many begin often: what costs least in all is found exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Ints


def passes(lengths: Sequence[int], overhead: float) -> list[Ints]:
    """The places of the rows [n] of each pass, the longest rows first.

    Over the different lengths l₁ < … < l_m, with n_i rows each, the least cost of the first j is
    C(j) = min over i < j of C(i) + overhead + l_j · (n_{i+1} + … + n_j), since of rows in one pass
    only neighbours in length need be looked at.
    """
    found = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(found, kind="stable")
    sizes, counts = np.unique(found, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)]).tolist()
    widths = sizes.tolist()
    best, begun = [0.0], [0]
    for j, width in enumerate(widths, 1):
        costs = [best[i] + overhead + width * (ends[j] - ends[i]) for i in range(j)]
        begun.append(min(range(j), key=costs.__getitem__))
        best.append(costs[begun[j]])
    made: list[Ints] = []
    j = len(widths)
    while j > 0:
        i = begun[j]
        made.append(order[ends[i] : ends[j]])
        j = i
    return made
