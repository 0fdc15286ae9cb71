"""A full disk, no memory, a loss that explodes: one message, exit 2, nothing that looks finished,
and the same command with ``--resume`` goes on."""

from __future__ import annotations

import errno
import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import holdfast.core.files as files
import holdfast.pipeline.main as pipeline
import holdfast.runs.scoring as scoring
import holdfast.tasks.classes.task as text_classification
import holdfast.training.step as step


def unfinished(run: Path) -> None:
    assert (run / "recipe.yaml").is_file()
    assert not (run / "result.json").exists()
    for path in run.rglob("*.partial"):
        pytest.fail(f"{path} was left")


def one_block(err: str, code: int) -> None:
    assert code == 2, err
    assert err.startswith("holdfast: ")
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 2


def full_for(name: str) -> Callable[[Path, Callable[[Path], None]], None]:
    """``write_atomically`` on a disk that has no room for files of this name."""
    write = files.write_atomically

    def fill(path: Path, fill_in: Callable[[Path], None]) -> None:
        def no_room(beside: Path) -> None:
            beside.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(beside))

        write(path, no_room if path.match(name) else fill_in)

    return fill


@pytest.mark.slow
@pytest.mark.parametrize("name", ["result.json", "predictions.parquet", "step-*.pt"])
def test_a_full_disk_leaves_the_run_to_be_resumed(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    import holdfast.contract.result as outcome
    import holdfast.training.checkpoint as checkpoint

    with monkeypatch.context() as patch:
        for module in (files, outcome, checkpoint):
            patch.setattr(module, "write_atomically", full_for(name))
        done = holdfast("train", marked_csv, "--out", "run", "--quiet", *sets)
    one_block(done.err, done.code)
    assert "is full" in done.err
    assert "--resume" in done.err
    unfinished(tmp_path / "run")
    again = holdfast("train", marked_csv, "--out", "run", "--quiet", "--resume", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["test"]["n"] == 24


@pytest.mark.slow
def test_a_limit_on_file_size_stops_the_model_from_being_saved_half(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's own refusal, inside safetensors."""
    save = scoring.save_model
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*arguments: Any) -> float:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            return save(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "save_model", limited)
            done = holdfast("train", marked_csv, "--out", "run", "--quiet", *sets)
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    one_block(done.err, done.code)
    assert "is full" in done.err
    assert not (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "run" / "model").exists()
    again = holdfast("train", marked_csv, "--out", "run", "--quiet", "--resume")
    assert again.code == 0, again.err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "recipe.yaml",
        "result.json",
        "events.jsonl",
        "report.html",
        "model",
        "predictions.parquet",
        "splits.parquet",
        "answers.parquet",
        "examples.parquet",
        "looks.npz",
    }


def raising(error: Exception) -> Callable[..., Any]:
    def act(*_: Any, **__: Any) -> Any:
        raise error

    return act


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training", "scoring"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_no_memory_is_one_message(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: Exception,
) -> None:
    module, name = (step, "_losses") if where == "training" else (text_classification, "answer")
    monkeypatch.setattr(module, name, raising(error))
    done = holdfast("train", marked_csv, "--out", "run", "--quiet", *sets)
    one_block(done.err, done.code)
    assert "memory" in done.err
    assert "train.batch_size" in done.err
    unfinished(tmp_path / "run")


def test_a_rate_that_explodes_is_one_message_or_a_diverging_run(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    """With nobody allowed to stop the run, the next step finds that the loss is no number."""
    done = holdfast(
        "train",
        marked_csv,
        "--out",
        "run",
        "--quiet",
        *sets,
        "--set",
        "train.learning_rate=1e38",
        "--set",
        "control.policy=off",
        "--set",
        "methods.contrast=false",
        "--set",
        "train.optimizer=sgd",
        "--set",
        "train.clip=1e30",
    )
    one_block(done.err, done.code)
    assert "not a finite number" in done.err
    assert "train.learning_rate" in done.err
    unfinished(tmp_path / "run")


def test_a_defect_is_called_one(
    holdfast: Any, marked_csv: Path, sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "load_and_divide", raising(KeyError("surprise")))
    done = holdfast("train", marked_csv, "--quiet", *sets)
    assert done.code == 1
    assert "a bug in Holdfast" in done.err
    assert "Traceback" not in done.err
