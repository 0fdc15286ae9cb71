"""Fits in this process: how they are scored."""

from __future__ import annotations

import numpy as np
import pytest


def test_scores_are_those_of_plain_cross_entropy() -> None:
    import torch
    from peers.in_process import scores

    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    labels = np.random.default_rng(1).integers(0, 4, 50)
    found = scores(logits, labels)
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert found["loss"] == pytest.approx(float(wanted))
    assert found["refined"] <= found["loss"] + 1e-6
