"""Two processes on the processor (gloo) give the numbers of one, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from safetensors.numpy import load_file

from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

CLOSE = 1e-4


def launch(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """As a user would: ``torchrun --nproc-per-node=2 --no-python holdfast train …``."""
    holdfast = Path(sys.executable).parent / "holdfast"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, "--nproc-per-node=2", "--no-python", str(holdfast), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def run_both(
    folder: Path, marked_csv: Path, quick: list[str]
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """The runs of one and of two processes, without dropout, and what the two printed."""
    settings = [f"data.path={marked_csv}", *quick, "model.dropout=0", "train.accumulate=2"]
    train(override(Recipe(), settings), folder / "alone")
    options = [part for setting in settings[1:] for part in ("--set", setting)]
    arguments = ["train", str(marked_csv), *options, "--quiet", "--json"]
    done = launch(folder, arguments)
    assert done.returncode == 0, done.stderr
    runs = list((folder / "runs").iterdir())
    assert [run.name for run in runs] == ["reviews-1"], "the two must agree on one folder"
    return folder / "alone", runs[0], done


def snapshots(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] == "snapshot"]


def same_weights(both: Any) -> None:
    one, two = (load_file(run / "model" / "model.safetensors") for run in both[:2])
    assert one.keys() == two.keys()
    for name in one:
        # A key's bias has no gradient but rounding, which Adam makes as large as any other.
        if name.endswith("key.bias"):
            continue
        np.testing.assert_allclose(two[name], one[name], rtol=CLOSE, atol=CLOSE, err_msg=name)


def same_losses_at_every_look(both: Any) -> None:
    one, two = (snapshots(run) for run in both[:2])
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        for name in ("train_loss", "valid_loss", "gradient_norm", "examples_seen"):
            if a[name] is not None:
                assert b[name] == pytest.approx(a[name], rel=CLOSE, abs=CLOSE)


def same_predictions_and_scores(both: Any) -> None:
    one, two = (parquet.read_table(run / "predictions.parquet") for run in both[:2])
    for name in ("row", "label", "prediction"):
        assert one[name].to_pylist() == two[name].to_pylist()
    np.testing.assert_allclose(two["loss"].to_numpy(), one["loss"].to_numpy(), atol=CLOSE)
    results = [json.loads((run / "result.json").read_text("utf-8")) for run in both[:2]]
    for block in ("test", "valid", "train_probe"):
        accuracy = [result[block]["metrics"]["accuracy"] for result in results]
        assert accuracy[0] == accuracy[1]


def one_writes_and_one_speaks(both: Any) -> None:
    run, done = both[1], both[2]
    assert json.loads(done.stdout)["last_step"] == snapshots(run)[-1]["step"]
    steps = [line["step"] for line in snapshots(run)]
    assert len(steps) == len(set(steps))
    assert not (run / "checkpoints").exists()
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path: Path, marked_csv: Path, quick: list[str]) -> None:
    """One test, so that the runs are made once whatever the number of workers."""
    both = run_both(tmp_path, marked_csv, quick)
    same_weights(both)
    same_losses_at_every_look(both)
    same_predictions_and_scores(both)
    one_writes_and_one_speaks(both)
