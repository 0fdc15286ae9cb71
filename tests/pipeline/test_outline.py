"""The outline's numbers: passes over the training rows."""

from __future__ import annotations

import pytest

from holdfast.core.updates import BatchSource
from holdfast.methods.contrast import ClassBatches
from holdfast.runs.start import _passes
from holdfast.training.plan import EveryRow, Phase


@pytest.mark.parametrize(
    ("source", "steps", "size", "rows", "passes"),
    [
        (EveryRow(), 240, 16, 56, 60.0),
        (EveryRow(1), 240, 16, 56, 60.0),
        (EveryRow(), 10, 8, 80, 1.0),
        (ClassBatches(), 75, 32, 140, 75 * 32 / 140),
    ],
)
def test_a_partial_batch_ends_a_pass(
    source: BatchSource, steps: int, size: int, rows: int, passes: float
) -> None:
    phase = Phase(
        name="p",
        source=source,
        steps=steps,
        batch_size=size,
        learning_rate=1.0,
        head_learning_rate=1.0,
    )
    assert _passes(phase, rows) == pytest.approx(passes)
