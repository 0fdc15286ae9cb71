"""The rows of the task comparisons: equal for every system, copies out, seeds apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def rows() -> list[dict[str, str]]:
    return [{"text": f"a plain sentence about thing number {n} of {n * n}"} for n in range(200)]


def test_no_row_is_on_two_sides_and_no_test_row_of_one_seed_trains_in_another(
    rows: list[dict[str, str]],
) -> None:
    from peers.task_rows import divided

    tested: set[str] = set()
    trained: set[str] = set()
    for seed in range(3):
        parts = divided(rows, None, (60, 10, 12), seed)
        sides = {side: {row["text"] for row in found} for side, found in parts.items()}
        assert {side: len(found) for side, found in sides.items()} == {
            "train": 60,
            "valid": 10,
            "test": 12,
        }
        assert not sides["train"] & sides["valid"]
        tested |= sides["test"]
        trained |= sides["train"] | sides["valid"]
    assert len(tested) == 36
    assert not tested & trained


def test_copies_are_taken_out_before_the_division(rows: list[dict[str, str]]) -> None:
    from peers.task_rows import divided

    twice = [*rows[:100], *rows[:100]]
    parts = divided(twice, [row["text"] for row in twice], (40, 10, 10), 0)
    texts = [row["text"] for side in parts.values() for row in side]
    assert len(texts) == len(set(texts)) == 60


def test_an_arm_without_its_rows_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    """A run that dropped a row is no comparison."""
    from peers import task_arms
    from peers.process import Ended
    from peers.task_rows import TaskParts

    raw = {side: [{"source": "a", "target": "b"}] * 4 for side in ("train", "valid", "test")}

    def run(command: Any, folder: Path, threads: int) -> Ended:
        (folder / "run").mkdir()
        result = {"data": {"train": 3, "valid": 4, "test": 4}}
        (folder / "run" / "result.json").write_text(json.dumps(result))
        return Ended(1.0, 1.0, 1.0)

    monkeypatch.setattr(task_arms, "run_process", run)
    parts = TaskParts(raw, {side: [{"input_ids": [1]}] for side in raw})
    with pytest.raises(ValueError, match="3 train rows of 4"):
        task_arms.run_task_arm(
            task_arms.TaskArm("holdfast"), "summaries", tmp_path, parts, seed=0, threads=1
        )
