"""Holm's adjusted p-values: by his step-down procedure, and the error that it keeps."""

from __future__ import annotations

import numpy as np

from holdfast.stats.two_samples import holm


def rejected(p: list[float], alpha: float) -> set[int]:
    """Holm's procedure as he wrote it: from the smallest on, until one is not small enough."""
    kept: set[int] = set()
    for step, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        if p[at] > alpha / (len(p) - step):
            break
        kept.add(at)
    return kept


def test_it_rejects_what_the_procedure_rejects() -> None:
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(500):
        # Many of them small, or next to nothing would be rejected.
        p = (rng.random(rng.integers(1, 13)) ** 4).tolist()
        alpha = float(rng.uniform(0.001, 0.3))
        wanted = rejected(p, alpha)
        assert {*np.flatnonzero(holm(np.array(p)) <= alpha).tolist()} == wanted
        several += 1 < len(wanted) < len(p)
    assert several > 100


def test_none_is_falsely_rejected_more_often_than_said() -> None:
    rng = np.random.default_rng(0)
    false = sum((holm(rng.random(20)) <= 0.05).any() for _ in range(2000))
    assert false / 2000 <= 0.065  # 5 % and three standard errors


def test_nothing_asked_is_nothing_answered() -> None:
    assert holm(np.array([])).tolist() == []
