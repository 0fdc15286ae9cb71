"""Whether synthetic rows help is decided by validation rows that may come in groups."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.core.records import Ints
from holdfast.prepare.synthetic import NewText, _measure_gain


def test_copies_of_validation_rows_do_not_narrow_the_interval_of_the_gain() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(72) % 2
    vectors = rng.normal(size=(72, 4)) + labels[:, None]
    new = [NewText("text", k % 2, "template") for k in range(20)]
    new_vectors = rng.normal(size=(20, 4)) + np.arange(20)[:, None] % 2
    train, rows = np.arange(60), np.arange(60, 72)

    def measured(valid: Ints) -> Any:
        table = SimpleNamespace(column=lambda _: labels, classes=("a", "b"))
        prepared: Any = SimpleNamespace(
            rows=table, recipe=SimpleNamespace(seed=0), units=np.arange(72)
        )
        return _measure_gain(prepared, vectors, new_vectors, new, train, valid, 1.0)

    once, copied = measured(rows), measured(np.repeat(rows, 10))
    assert (copied.n, once.n) == (120, 12)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
