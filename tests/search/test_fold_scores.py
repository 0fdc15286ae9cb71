"""What folds say together where one of them has nothing to say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.search.fold_scores import _by_folds, told_of_fold


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


@pytest.mark.parametrize(("repeat", "said"), [(0, "fold 2 of 5"), (1, "fold 2, repeat 2")])
def test_a_fold_is_counted_among_those_of_its_repeat(repeat: int, said: str) -> None:
    one, done = fold(accuracy={"value": 0.5})
    one.number, one.repeat = 1, repeat
    done.best_step, done.planned, done.seconds, done.verdict = 3, 4, 1.0, {"label": "healthy"}
    assert told_of_fold(one, done, 5).what == said
