"""What the table of defaults fills in, and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from holdfast.pipeline.defaults import phases_of, resolve
from holdfast.recipe import Recipe


@pytest.mark.parametrize(
    ("task", "given", "share"),
    [
        ("text-classification", None, 0.1),
        ("image-classification", None, 0.1),
        ("seq2seq", None, 0.0),
        ("causal-lm", None, 0.0),
        ("seq2seq", 0.2, 0.2),
    ],
)
def test_a_model_that_writes_has_no_warm_up_unless_it_is_asked_for(
    task: Any, given: float | None, share: float
) -> None:
    recipe = Recipe(task=task).changed(train={"warmup": given, "epochs": 8})
    resolved, _ = resolve(recipe, 5_000_000, 600)
    (phase,) = [p for p in phases_of(resolved, 5_000_000, 600) if p.name == "finetune"]
    assert phase.warmup == share
    assert phase.warmup_steps == math.ceil(share * phase.steps)
