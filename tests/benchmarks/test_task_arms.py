"""An arm of the task comparisons, run whole: what it calls of Holdfast changes with Holdfast."""

from __future__ import annotations

import math
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
def test_a_fit_is_trained_and_scored_in_processes_of_its_own(tiny_llama: Path) -> None:
    from peers.task_arms import TaskArm, run_task_arm
    from peers.task_rows import language_parts

    rows = [{"text": f"red blue old new {n} {n * n} green"} for n in range(80)]
    parts = language_parts(rows, [row["text"] for row in rows], tiny_llama, (24, 8, 8), 0)
    arm = TaskArm("fit", {"train.epochs": 1, "train.batch_size": 8, "train.precision": "float32"})
    found = run_task_arm(arm, "novel", tiny_llama, parts, seed=0, threads=1)
    assert found["steps"] == 3
    assert found["trials"] == ""
    assert math.isfinite(found["test_loss"])
    assert math.isfinite(found["general_loss"])
