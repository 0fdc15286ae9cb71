"""Whatever the task, a model can be chosen for its rows: what is said is whole, and plain JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import Defect
from holdfast.data.table import HeldOut
from holdfast.metrics.comparison import METRICS
from holdfast.search.choice.models import choose_model


def test_a_model_is_chosen_for_rows_of_every_kind(
    sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: HeldOut) -> None:
        raise Defect("the test rows", "were opened")

    monkeypatch.setattr(HeldOut, "open", refuse)
    quick = {"epochs": 1, "precision": "float32", "threads": 1, "matmul": "default"}
    recipe = sample.recipe.with_changes(train=quick)
    found = choose_model(recipe, [recipe.model.name])
    assert found.task == recipe.task
    assert (found.metric, found.higher) in METRICS.values()
    (only,) = found.candidates
    assert only.short is not None
    assert only.short.steps > 0
    assert (only.texts is None) != (only.frozen is None)
    (predicted,) = found.predicted
    assert predicted["value"] is None
    measured = only.evidence
    assert measured.value is not None
    if measured.low is not None and measured.high is not None:
        assert measured.low <= measured.value <= measured.high
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["chosen"] == recipe.model.name
    assert told["models"][0]["parameters"] > 0
    assert told["models"][0]["rows_per_s"] > 0
    if only.frozen is not None:
        known = np.isfinite(only.frozen.rows)
        assert known.mean() > 0.8
        assert len(told["models"][0]["layers"]) >= 2
