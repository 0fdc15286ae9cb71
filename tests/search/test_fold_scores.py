"""What folds say together where one of them has nothing to say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.search.fold_scores import _by_folds


def fold(**metrics: Any) -> Any:
    rows = np.arange(4)
    held = SimpleNamespace(scores={"metrics": metrics})
    return SimpleNamespace(train=rows, valid=rows, held=rows), SimpleNamespace(held=held)


def test_a_metric_that_a_fold_lacks_is_undefined_with_the_reason_and_never_left_out() -> None:
    known, none = {"value": 0.5}, {"value": None, "why": "the numbers do not vary"}
    found = _by_folds([fold(mae=known, r2=known), fold(mae=known, r2=none)])
    assert found["mae"].value == pytest.approx(0.5)
    assert found["r2"].value is None
    assert found["r2"].low is None
    assert found["r2"].why == "none in 1 of 2 folds: the numbers do not vary"
