"""Fresh runs are counted by what unseen rows show, and cells run at once are the same cells."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import Interrupted


def result(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "label": "healthy",
        "cause": None,
        "label_of_stored_run": "healthy",
        "train_accuracy": 0.96,
        "valid_accuracy": 0.9,
        "pool_accuracy": 0.9,
        "pool_best_accuracy": 0.9,
        "pool_loss": 0.3,
        "pool_least": 0.3,
    }
    return plain | changes


@pytest.mark.parametrize(
    ("changes", "truth"),
    [
        ({}, "sound"),
        ({"pool_accuracy": 0.8}, "overfit"),
        ({"pool_loss": 0.5}, "miscalibrated"),
        ({"pool_loss": 0.5, "pool_best_accuracy": 0.96}, "overfit"),
        ({"pool_loss": 0.33}, "neither"),
        ({"train_accuracy": 0.93, "pool_accuracy": 0.7}, "neither"),
        ({"train_accuracy": 0.8, "pool_accuracy": 0.75}, "sound"),
        ({"pool_loss": float("nan")}, "neither"),
    ],
)
def test_truth_is_what_unseen_rows_show(changes: dict[str, Any], truth: str) -> None:
    from verdict_parts.fresh_truth import truth_of

    assert truth_of(result(**changes)) == truth


def test_a_fault_is_named_by_its_label_or_its_cause() -> None:
    from verdict_parts.fresh_truth import is_named

    high = result(label="underfit", cause="the learning rate is too high")
    assert is_named("rate x100", high)
    assert not is_named("rate /30", high | {"label": "overfit"})
    memorized = result(label="overfit", train_accuracy=1.0, pool_accuracy=0.5)
    assert is_named("noise 35", memorized)
    assert not is_named("noise 35", memorized | {"pool_accuracy": 0.99})
    assert not is_named("copies 50", memorized)


def test_every_group_has_enough_runs_at_each_entry_point_and_no_cell_twice() -> None:
    import fresh_verdicts
    from cells import key

    cells = fresh_verdicts.all_cells(fresh_verdicts.FRESH)
    assert len({key(cell) for cell in cells}) == len(cells)
    groups = Counter(cell["group"] for cell in cells)
    assert min(groups["overfit"], groups["sound"]) >= 50
    assert groups["faults"] >= 42
    met = Counter((cell["group"], cell["entry"]) for cell in cells)
    assert min(met.values()) >= 10
    assert {cell["valid"] for cell in cells} == {11, 24, 45, 100, 200}


def test_a_run_that_is_not_what_it_was_meant_to_be_counts_in_no_group() -> None:
    import fresh_verdicts

    cells = [c for c in fresh_verdicts.all_cells([0]) if c["group"] == "overfit"][:3]
    over = {"pool_accuracy": 0.6}
    done = [result(label="overfit", **over), result(label="healthy", **over), result()]
    lines = [{**cell, **one} for cell, one in zip(cells, done, strict=True)]
    counted = fresh_verdicts.counted(lines)
    assert [line["right"] for line in counted] == [True, False]
    assert "1 meant as overfit but measured as sound" in fresh_verdicts.wrong_ones(lines)


def test_cells_at_once_are_each_run_once_and_go_on_where_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cells import run_cells, stored

    cells = [{"part": part} for part in range(5)]
    out = tmp_path / "cells.jsonl"
    run_cells("parts", cells[:2], dict, out)
    # ``dict`` gives the cell as its result, and any process can import it.
    assert run_cells("parts", cells, dict, out, jobs=2) == cells
    assert len(out.read_text().splitlines()) == len(stored(out)) == 5
    assert capsys.readouterr().out.count("parts 1/5") == 0


def test_a_benchmark_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    place = Path(__file__).parents[2] / "benchmarks"
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, time\n"
        "def slow(cell):\n"
        "    pathlib.Path(f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        "    from cells import run_cells\n"
        "    run_cells('slow', [{'part': 0}, {'part': 1}], slow, pathlib.Path('out'), jobs=2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "slow.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(place)}
    ) as running:
        while len(workers := [int(one.stem) for one in tmp_path.glob("*.pid")]) < 2:
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
    while any(Path(f"/proc/{worker}/exe").exists() for worker in workers):
        time.sleep(0.05)


def test_a_benchmark_that_is_told_to_end_begins_no_further_cell(tmp_path: Path) -> None:
    from cells import run_cells

    begun = []

    def told_to_end(cell: Any) -> dict[str, Any]:
        begun.append(cell)
        raise Interrupted("the fit", "was interrupted at step 35", None, "Fit it again.")

    with pytest.raises(Interrupted):
        run_cells("parts", [{"part": 0}, {"part": 1}], told_to_end, tmp_path / "cells.jsonl")
    assert begun == [{"part": 0}]
