"""Fairea's line, against the same done by chance many times."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.analyses.fairness.mitigation import fairea


def test_the_line_is_what_flipping_at_random_gives() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.4).astype(np.int64)
    groups = rng.integers(0, 2, 500)
    answers = np.where(rng.random(500) < 0.1 + 0.15 * groups, 1 - labels, labels)
    rates = [answers[groups == g].mean() for g in (0, 1)]
    before = abs(rates[0] - rates[1])
    found = fairea(answers == labels, answers == labels, labels, 0.4 * before, before)
    assert found.flipped == pytest.approx(0.6)
    kept, gaps = [], []
    for _ in range(3000):
        flipped = np.where(rng.random(500) < 0.6, 0, answers)
        kept.append((flipped == labels).mean())
        gaps.append(flipped[groups == 1].mean() - flipped[groups == 0].mean())
    assert found.line == pytest.approx(np.mean(kept), abs=0.002)
    assert abs(np.mean(gaps)) == pytest.approx(0.4 * before, abs=0.003)
    # The gap is gone at no cost at all: that no flipping does.
    assert found.verdict == "better"


def test_what_only_flips_is_no_better_and_a_wider_gap_says_so() -> None:
    labels = np.repeat([0, 1], [60, 40])
    right = np.ones(100, dtype=bool)
    constant = labels == 0
    assert fairea(constant, right, labels, 0.0, 0.3).verdict in ("no better", "undecided")
    worse = right & (np.arange(100) % 2 == 0)
    assert fairea(worse, right, labels, 0.0, 0.3).verdict == "undecided"
    assert fairea(right, right, labels, 0.4, 0.3).verdict == "wider"
    assert fairea(np.zeros(100, bool), right, labels, 0.1, 0.3).verdict == "no better"
