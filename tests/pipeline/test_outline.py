"""The outline's numbers: passes over the training rows."""

from __future__ import annotations

import pytest

from holdfast.pipeline.outline import _passes
from holdfast.training.plan import Phase


@pytest.mark.parametrize(
    ("sampler", "steps", "size", "rows", "passes"),
    [
        ("windows", 240, 16, 56, 60.0),
        ("shuffled", 240, 16, 56, 60.0),
        ("windows", 10, 8, 80, 1.0),
        ("classes", 75, 32, 140, 75 * 32 / 140),
    ],
)
def test_a_partial_batch_ends_a_pass(
    sampler: str, steps: int, size: int, rows: int, passes: float
) -> None:
    phase = Phase(
        name="p",
        loss="task",
        head="train",
        sampler=sampler,  # type: ignore[arg-type]
        steps=steps,
        batch_size=size,
        learning_rate=1.0,
        head_learning_rate=1.0,
    )
    assert _passes(phase, rows) == pytest.approx(passes)
