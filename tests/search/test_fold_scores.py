"""What folds say together where one of them has nothing to say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.search.folds.scores import _fold_estimates, fold_decision


def fold(**metrics: Any) -> Any:
    rows = np.arange(4)
    held = SimpleNamespace(scores={"metrics": metrics})
    return SimpleNamespace(train=rows, valid=rows, held_out=rows), SimpleNamespace(
        held_out_scores=held
    )


def test_a_metric_that_a_fold_lacks_is_undefined_with_the_reason_and_never_left_out() -> None:
    known, none = {"value": 0.5}, {"value": None, "why": "the numbers do not vary"}
    found = _fold_estimates([fold(mae=known, r2=known), fold(mae=known, r2=none)])
    assert found["mae"].value == pytest.approx(0.5)
    assert found["r2"].value is None
    assert found["r2"].low is None
    assert found["r2"].why == "undefined in 1 of 2 folds: the numbers do not vary"


@pytest.mark.parametrize(("repeat", "said"), [(0, "fold 2 of 5"), (1, "fold 2, repeat 2")])
def test_a_fold_is_counted_among_those_of_its_repeat(repeat: int, said: str) -> None:
    one, done = fold(accuracy={"value": 0.5})
    one.number, one.repeat = 1, repeat
    done.best_step, done.planned, done.seconds, done.verdict = 3, 4, 1.0, {"label": "healthy"}
    assert fold_decision(one, done, 5).what == said


def test_no_interval_goes_beyond_what_its_metric_can_be() -> None:
    """Two folds that differ much have a t of one degree of freedom, ±12.7 errors wide."""
    far = {
        name: ({"value": low}, {"value": high})
        for name, low, high in [
            *(("rmse", 0.2, 4.0), ("loss", 0.1, 3.0), ("r2", -0.5, 0.9), ("mcc", -0.5, 0.9)),
            *(("spearman", 0.1, 0.9), ("entity_f1", 0.1, 0.9), ("mine", 10.0, 90.0)),
        ]
    }
    pairs = [fold(**{name: two[i] for name, two in far.items()}) for i in (0, 1)]
    found = _fold_estimates(pairs, {"mine": (0.0, 100.0)})
    ends = {name: (one.low, one.high) for name, one in found.items()}
    assert ends["rmse"][0] == ends["loss"][0] == 0
    assert ends["rmse"][1] > 4  # type: ignore[operator]
    assert ends["r2"][0] < -2  # type: ignore[operator]
    assert ends["r2"][1] == 1
    assert ends["mcc"] == ends["spearman"] == (-1, 1)
    assert ends["entity_f1"] == (0, 1)
    assert ends["mine"] == (0, 100)
    near = _fold_estimates([fold(rmse={"value": 3.0}), fold(rmse={"value": 3.01})])["rmse"]
    rows = np.array([3.0, 3.01])
    half = 12.706204736 * np.sqrt((1 / 2 + 4 / 8) * rows.var(ddof=1))
    assert [near.low, near.high] == pytest.approx([3.005 - half, 3.005 + half])
