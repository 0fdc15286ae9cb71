"""Evaluation batches: longest rows first, a bounded number of padded tokens each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from holdfast.core.records import Ints


def by_length(lengths: Ints, positions: Ints, tokens: int) -> Iterator[Ints]:
    """Evaluation batches, longest rows first, each of at most ``tokens`` padded tokens.

    The first batch is the largest, so that a run that will not fit fails at once.
    """
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        # A row longer than a batch is one by itself.
        size = max(1, tokens // longest)
        yield order[start : start + size]
        start += size
