"""Results are paired by their rows, and a benchmark runs and keeps what it says."""

from __future__ import annotations

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


def test_at_least_ten_pairs_are_planned_against_the_trainer() -> None:
    import vs_trainer
    from peers.tables import matched

    planned = [{**cell, "accuracy": 0.0} for cell in vs_trainer.cells(quick=False)]
    for arm in (vs_trainer.MAIN, vs_trainer.OURS_FLOAT):
        assert len(matched(planned, vs_trainer.BY, (arm, vs_trainer.PEER))) >= 10


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
