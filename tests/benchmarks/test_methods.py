"""Methods: who goes on, and which rows judge."""

from __future__ import annotations

import numpy as np
import pytest


def test_an_arm_goes_on_above_one_standard_error_only() -> None:
    import methods

    assert methods.passes([1.0, 1.2, 0.8])
    assert not methods.passes([3.0, -2.0, 0.5])
    assert not methods.passes([5.0])


def test_many_classes_keep_a_row_to_learn_from() -> None:
    from peers.in_process import judging
    from peers.rows import Rows

    labels = tuple(f"class {i % 30}" for i in range(40))
    rows = Rows(tuple(map(str, range(40))), labels)
    valid = judging(rows, np.arange(40), 10)
    left = {label for i, label in enumerate(labels) if i not in set(valid.tolist())}
    assert len(valid) == 10
    assert len(left) == 30


def test_scores_are_those_of_plain_cross_entropy() -> None:
    import torch
    from peers.in_process import scores

    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    labels = np.random.default_rng(1).integers(0, 4, 50)
    found = scores(logits, labels)
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert found["loss"] == pytest.approx(float(wanted))
    assert found["refined"] <= found["loss"] + 1e-6
