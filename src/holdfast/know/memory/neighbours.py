"""Whether texts that lay near each other before training still do."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.stats.paired import paired_bootstrap

NEAREST = 5


def nearest(vectors: Floats) -> Ints:
    """The five nearest others of each row [n, 5] by cosine, the nearest first; equals in the order
    of the rows."""
    x = np.asarray(vectors, dtype=np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    # Rounding must not decide between equals.
    alike = np.round(x @ x.T, 9)
    np.fill_diagonal(alike, -np.inf)
    return np.asarray(np.argsort(-alike, axis=1, kind="stable")[:, :NEAREST])


def kept_neighbours(before: Floats, after: Floats) -> Floats:
    """The share of each row's five nearest others before training that still are [n]."""
    one, other = nearest(before), nearest(after)
    return np.array([np.isin(a, b).mean() for a, b in zip(one, other, strict=True)])


def neighbours_block(before: Floats, after: Floats, seed: int) -> dict[str, Any]:
    """``probes.forgetting`` of a run whose texts have vectors before and after: ``kept`` with its
    interval over texts, beside ``chance``."""
    kept = kept_neighbours(before, after)
    n = len(kept)
    found = paired_bootstrap(kept, np.zeros(n), seed=generator(seed, "neighbours"))
    chance = NEAREST / (n - 1)
    span = f"95 % CI {100 * found.low:.0f}–{100 * found.high:.0f}; by chance {chance:.0%}"
    because = (
        f"On {n} general texts, {found.value:.0%} of each text's {NEAREST} nearest neighbours in "
        f"the base model's features are the same after training ({span})."
    )
    return {
        "what": "neighbours",
        "n": n,
        "kept": Estimate(found.value, found.low, found.high).to_json(),
        "chance": chance,
        "because": because,
    }
