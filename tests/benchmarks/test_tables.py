"""Results are paired by their rows, and a benchmark runs and keeps what it says."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest


def record(arm: str, accuracy: float, seed: int = 0, **others: Any) -> dict[str, Any]:
    told = {
        "train_s": 10.0,
        "command_s": 20.0,
        "cpu_s": 9.0,
        "peak_mb": 900.0,
        "examples_per_s": 50.0,
        "precision": "bfloat16",
        "probe_accuracy": None,
        "commit": "abc",
        "load_before": 0.1,
    }
    return {
        "rows": 100,
        "data": "cr",
        "seed": seed,
        "arm": arm,
        "accuracy": accuracy,
        **told,
        **others,
    }


def test_only_runs_with_every_arm_are_matched() -> None:
    from peers.tables import matched

    done = [record("a", 0.5), record("b", 0.6), record("a", 0.7, seed=1)]
    groups = matched(done, ("data", "seed"), ("a", "b"))
    assert [(group["a"]["accuracy"], group["b"]["accuracy"]) for group in groups] == [(0.5, 0.6)]


@pytest.mark.parametrize("count", [1, 7, 8, 500])
def test_bits_come_back(count: int) -> None:
    import numpy as np
    from peers.kept import pack, unpack

    bits = np.random.default_rng(count).random(count) < 0.5
    assert (unpack(pack(bits.tolist()), count) == bits).all()


def test_what_is_kept_is_found_by_cell_after_half_a_line(tmp_path: Path) -> None:
    from peers.kept import beside, keep, kept

    path = tmp_path / "results.jsonl"
    keep(path, {"seed": 0}, {"right": "a0"})
    with beside(path).open("a") as file:
        file.write('{"cell": {"se')
    keep(path, {"seed": 1}, {"right": "b0"})
    assert kept(path, {"seed": 0}) == {"right": "a0"}
    assert kept(path, {"seed": 1}) == {"right": "b0"}


def test_small_data_runs_the_small_sizes_first_and_the_arms_side_by_side() -> None:
    import small_data

    todo = small_data.cells(quick=False)
    main = [cell for cell in todo if "setfit" not in cell["arm"]]
    assert [cell["rows"] for cell in main] == sorted(cell["rows"] for cell in main)
    assert len({(cell["data"], cell["seed"]) for cell in todo[:3]}) == 1
    assert todo[-1]["arm"] == small_data.SETFIT_ALL
    assert len({tuple(cell.items()) for cell in todo}) == len(todo)
    assert {cell["rows"] for cell in todo if cell["arm"] == "setfit"} == {100}


def test_the_probe_comes_from_holdfasts_result() -> None:
    import small_data

    done = small_data.with_probe([record("holdfast", 0.8, probe_accuracy=0.7)])
    assert [(r["arm"], r["accuracy"]) for r in done] == [("holdfast", 0.8), ("linear probe", 0.7)]


def test_at_least_ten_pairs_are_planned_against_the_trainer() -> None:
    import vs_trainer
    from peers.tables import matched

    planned = [{**cell, "accuracy": 0.0} for cell in vs_trainer.cells(quick=False)]
    for arm in (vs_trainer.MAIN, vs_trainer.OURS_FLOAT):
        assert len(matched(planned, vs_trainer.BY, (arm, vs_trainer.PEER))) >= 10


class Snapshot:
    def __init__(self, loss: float) -> None:
        import numpy as np

        self.phase, self.temperature = "finetune", 1.0
        self.valid_loss = self.refined_loss = loss
        self.valid_metrics = {"accuracy": 1 - loss}
        self.train_losses = np.array([loss])


class Run:
    """A run whose state is a number."""

    def __init__(self) -> None:
        self.step, self.history, self.state = 0, [], 0

    def copy_tensors(self) -> dict[str, Any]:
        return {"state": self.state}

    def load_tensors(self, tensors: dict[str, Any]) -> None:
        self.state = tensors["state"]


def test_each_rule_gets_the_state_that_it_picked() -> None:
    import selection

    run = Run()
    rules = {
        "loss": lambda s: s.valid_loss,
        "worst": lambda s: -s.valid_loss,
        "last": lambda s: -run.step,
        "never": lambda s: math.nan,
    }
    watcher = selection.Watcher(rules, None)
    for step, loss in enumerate([0.5, 0.2, 0.9, 0.4]):
        run.step, run.state = step, 100 + step
        run.history.append(Snapshot(loss))
        watcher.snapshot_taken(run)
    found = selection.picks(watcher, lambda run: run.state)
    assert {name: pick["accuracy"] for name, pick in found.items()} == {
        "loss": 101,
        "worst": 102,
        "last": 103,
        "never": 100,
    }


def test_a_process_that_fails_says_its_last_words(tmp_path: Path) -> None:
    from peers.process import run_process

    with pytest.raises(RuntimeError, match=r"(?s)exit code 3.*last words"):
        run_process([sys.executable, "-c", "print('last words'); exit(3)"], tmp_path, 1)


@pytest.mark.slow
def test_the_peak_is_of_the_process_itself(tmp_path: Path) -> None:
    from peers.process import run_process

    code = "import os; assert os.environ['OMP_NUM_THREADS'] == '3'; x = b'x' * 900_000_000"
    ended = run_process([sys.executable, "-c", code], tmp_path, 3)
    assert 900 < ended.peak_mb < 1200
    assert ended.cpu_s > 0
