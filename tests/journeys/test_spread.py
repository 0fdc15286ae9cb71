"""Weights spread over two processes (gloo, on a processor): the run of one, killed and resumed."""

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

pytest.importorskip("peft")
CLOSE = 2e-4
LOOKED_AT = ("train_loss", "valid_loss", "gradient_norm", "relative_update", "distance")
# What ``accelerate launch --use_fsdp --fsdp_version 2`` sets for its processes.
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
FULL = "train.precision=float32"
LORA = ["model.adapter.kind=lora+", "model.adapter.dropout=0", "train.learning_rate=1e-3"]
HALF = [
    *LORA,
    "model.adapter.kind=lora",
    "model.dtype=bfloat16",
    "train.chunk_loss=on",
    "train.checkpoint_activations=true",
]
WHOLE = ["model.freeze=none", "train.learning_rate=1e-3"]


@pytest.fixture(scope="module")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    rows = [
        {"instruction": f"Add {i} and {j}{' please' * (i % 3)}.", "output": str(i + j)}
        for i in range(7)
        for j in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "task=causal-lm",
        f"data.path={path}",
        f"model.name={tiny_llama}",
        # A last update of a row less than there are processes to share it.
        "train.max_steps=8",
        "train.evaluations=4",
        "train.batch_size=5",
        "train.threads=1",
        "train.matmul=default",
        "generate.rows=1",
        "generate.max_new_tokens=3",
        "probes.shots=0",
    ]


def launch(plan: list[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, str(Path(__file__).with_name("spread_runs.py")), str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | FSDP,
    )


def snapshots(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] == "snapshot"]


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return found


def weights(run: Path) -> dict[str, Any]:
    (path,) = (run / "model").glob("*.safetensors")
    return dict(load_file(path))


def same_run(one: Path, two: Path, near: float = CLOSE) -> None:
    """Two processes gave what one gives, but for the order in which numbers are added."""
    looks = snapshots(one), snapshots(two)
    assert [line["step"] for line in looks[0]] == [line["step"] for line in looks[1]]
    # In bfloat16 a gradient is known to a few parts in a hundred.
    names = LOOKED_AT if near == CLOSE else LOOKED_AT[:2]
    for a, b in zip(*looks, strict=True):
        for name in names:
            assert (a[name] is None) == (b[name] is None), name
            if a[name] is not None:
                assert b[name] == pytest.approx(a[name], rel=near, abs=near), name
    kept = (weights(one), weights(two))
    assert kept[0].keys() == kept[1].keys()
    for name in kept[0]:
        np.testing.assert_allclose(kept[1][name], kept[0][name], atol=5 * near, err_msg=name)
    both = (result(one), result(two))
    for name in ("best_step", "last_step"):
        assert both[0][name] == both[1][name]
    assert both[0]["verdict"]["label"] == both[1]["verdict"]["label"]
    losses = [
        parquet.read_table(run / "predictions.parquet")["loss"].to_numpy() for run in (one, two)
    ]
    np.testing.assert_allclose(losses[1], losses[0], atol=near)


def same_bytes(one: Path, two: Path) -> None:
    """The same weights to the bit, and the same looks on the way."""
    files = [(run / "model" / "model.safetensors").read_bytes() for run in (one, two)]
    assert files[0] == files[1]
    told = [[{**line, "seconds": 0} for line in snapshots(run)] for run in (one, two)]
    assert told[0] == told[1]


def chosen(run: Path, what: str) -> list[str]:
    return [made["chosen"] for made in result(run)["decisions"] if made["what"] == what]


@pytest.mark.slow
def test_spread_over_two_it_is_the_run_of_one_killed_and_resumed_too(
    base: list[str], tmp_path: Path
) -> None:
    """One test, since most of the time is what two processes import."""
    ways = {"lora": [*LORA, FULL], "whole": [*WHOLE, FULL], "half": HALF}
    for name, settings in ways.items():
        train(override(Recipe(), [*base, *settings]), tmp_path / f"{name}-1")
    runs = [
        {"settings": [*base, *settings], "folder": str(tmp_path / f"{name}-2")}
        for name, settings in ways.items()
    ]
    cut = {"settings": [*base, *ways["whole"]], "folder": str(tmp_path / "cut")}
    first = launch([*runs, {**cut, "kill": {"step": 5, "ranks": [1]}}], tmp_path)
    assert first.returncode != 0
    for name in ways:
        assert (tmp_path / f"{name}-2" / "report.html").is_file(), first.stderr[-3000:]
        same_run(tmp_path / f"{name}-1", tmp_path / f"{name}-2", 3e-2 if name == "half" else CLOSE)
        assert chosen(tmp_path / f"{name}-2", "train.shard") == ["full, over 2 processes"]
        assert not chosen(tmp_path / f"{name}-1", "train.shard")
    names = sorted(path.name for path in (tmp_path / "cut" / "checkpoints").glob("*.pt"))
    assert names == ["part-00000004-1of2.pt", "step-00000004.pt"]
    again = launch([{**cut, "resume": True}], tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    same_bytes(tmp_path / "cut", tmp_path / "whole-2")


@pytest.mark.slow
def test_both_are_killed_and_resumed(base: list[str], tmp_path: Path) -> None:
    whole = {"settings": [*base, *WHOLE, FULL], "folder": str(tmp_path / "whole")}
    cut = {**whole, "folder": str(tmp_path / "cut")}
    first = launch([whole, {**cut, "kill": {"step": 6, "ranks": [0, 1]}}], tmp_path)
    assert first.returncode != 0
    assert not (tmp_path / "cut" / "result.json").exists()
    again = launch([{**cut, "resume": True}], tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    same_bytes(tmp_path / "cut", tmp_path / "whole")
