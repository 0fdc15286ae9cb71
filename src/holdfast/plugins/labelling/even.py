"""Rows drawn evenly at random, fixed by their names: these alone say how right a model is.

A row's place in [0, 1) is a hash of its name, which nobody chooses. Rows below ``SHARE`` are set
apart: they are labelled in the order of their places, whatever the model says of them and whatever
anybody has said already, and never chosen for another reason. So those that were labelled are a
random sample of what was asked (a Poisson sample, cut in the order of random numbers: Ohlsson,
J. Official Statistics 1998), in every process and after every restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.stats.intervals import wilson

SHARE = 0.2
# Fewer are an anecdote.
LEAST = 10


def places(names: Sequence[tuple[str, int]]) -> Floats:
    """Of each row, by request and index, its place in [0, 1)."""
    hashes = (hashlib.blake2b(f"{id}/{at}".encode(), digest_size=8).digest() for id, at in names)
    return np.array([int.from_bytes(one, "big") / 2**64 for one in hashes], dtype=np.float64)


def even_accuracy(right: int, n: int) -> Estimate:
    """The share of rows that were answered rightly, of ``n`` that were drawn evenly; Wilson's
    interval."""
    if n < LEAST:
        return Estimate(None, why=f"{n} of the {LEAST} evenly drawn rows it needs are labelled")
    return Estimate(right / n, *wilson(right, n))
