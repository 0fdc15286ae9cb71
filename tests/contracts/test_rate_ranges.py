"""The range test of every kind of task, on the handful of rows that each sample has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.prepare.model import prepare
from holdfast.recipe import override
from holdfast.search import rate_range
from holdfast.search.rate_range import find_rate_range

SMALL = ["train.batch_size=4", "train.threads=1", "train.precision=float32", "generate.rows=0"]


@pytest.mark.slow
def test_every_kind_is_swept_and_what_was_prepared_stays_as_it_was(
    sample: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(rate_range, "UPDATES", 14)
    prepared = prepare(override(sample.recipe, SMALL), sample.table)
    before = {n: t.clone() for n, t in prepared.loaded.network.state_dict().items()}
    generator = torch.get_rng_state()
    found = find_rate_range(prepared, np.arange(9), np.arange(9, 13))
    assert torch.equal(torch.get_rng_state(), generator)
    after = prepared.loaded.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert 3 <= len(found.points) <= 14
    assert found.points[0].rate == 1e-7
    assert all(math.isfinite(one.loss) and math.isfinite(one.smoothed) for one in found.points)
    assert found.because
    assert (found.suggested is None) == (found.low is None) == (found.high is None)
