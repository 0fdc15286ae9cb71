"""The built-in general text, and the neighbours that its passages keep."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.analyses.forgetting.analysis import neighbour_overlap, neighbours_block
from holdfast.data.texts.general import passages


def test_the_passages_are_plain_distinct_and_of_one_size() -> None:
    texts = passages()
    assert len(set(texts)) == 48
    assert all(20 <= len(text.split()) <= 45 for text in texts)
    assert all(text.isascii() and "\n" not in text for text in texts)


def test_neighbours_are_kept_by_a_turn_and_lost_by_a_draw() -> None:
    random = np.random.default_rng(1)
    before = random.normal(size=(60, 8))
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0]
    assert neighbour_overlap(before, 3 * before @ turn).mean() == 1.0
    found = neighbours_block(before, random.normal(size=(60, 8)), seed=0)
    assert found["chance"] == pytest.approx(5 / 59)
    assert found["kept"]["low"] <= found["chance"] <= found["kept"]["high"]
