"""Seeds derived by name, so that adding one consumer of randomness never shifts another."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 32-bit seed for the purpose ``names``, e.g. ``derive_seed(0, "batches", epoch)``.

    >>> derive_seed(0, "batches", 1) == derive_seed(0, "batches", 1)
    True
    >>> derive_seed(0, "batches", 1) == derive_seed(0, "batches", 2)
    False
    """
    text = "/".join([str(seed), *map(str, names)])
    # Python's own hash of a text differs from one process to the next.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the purpose ``names``."""
    return np.random.default_rng(derive_seed(seed, *names))
