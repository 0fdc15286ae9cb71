"""``kill -9`` at seven moments, then ``--resume``: byte for byte what an undisturbed run gives."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.plugins.sandbox.fork import ENVIRONMENT

SCRIPT = Path(__file__).with_name("kill_runs.py")
MOMENTS = ["before-recipe", "step", "checkpoint", "model", "scoring", "result", "report"]
TIMES = {"timing", "peak_memory_mb", "created"}
# Decisions from a measurement of the machine at this moment.
MEASURED = {"train.matmul", "train.threads", "memory"}


def kill_and_resume(folder: Path, settings: list[str]) -> dict[str, tuple[int, int]]:
    """How each run was killed, and how its resume ended."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *settings],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, **ENVIRONMENT},
    )
    assert done.returncode == 0, done.stderr
    ends = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in done.stdout.splitlines()}
    assert ends.pop("undisturbed") == (0, 0), done.stderr
    return ends


def digests(run: Path, skipped: set[str]) -> dict[str, str]:
    files = [path for path in run.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if str(path.relative_to(run)) not in skipped
    }


def unmeasured(told: dict[str, Any]) -> dict[str, Any]:
    """A decision without the times and sizes that the machine gave this once."""
    return {
        key: re.sub(r"[\d.,]+", "#", value)
        if key in ("chosen", "because") and told.get("what") in MEASURED
        else value
        for key, value in told.items()
    }


def events(run: Path) -> list[dict[str, Any]]:
    """Without clocks; the note that the test rows were opened names the killed run's time."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    kept = [{k: v for k, v in line.items() if k not in ("seconds", "at")} for line in lines]
    for line in kept:
        if line.get("what") == "test rows opened":
            line["because"] = line["because"].split(";")[0]
    return [unmeasured(line) for line in kept]


def result(run: Path) -> dict[str, Any]:
    whole = json.loads((run / "result.json").read_text("utf-8"))
    whole["test"].pop("opened_at")
    # Files with clocks in them are other ones in each run, and so is the whole.
    whole["seal"] = {
        name: mark
        for name, mark in whole["seal"]["files"].items()
        if name not in ("events.jsonl", "looks.npz")
    }
    whole["decisions"] = [unmeasured(decision) for decision in whole["decisions"]]
    return {key: value for key, value in whole.items() if key not in TIMES}


def looks(run: Path) -> dict[str, Any]:
    """What ``looks.npz`` holds, but for how long each look took."""
    with np.load(run / "looks.npz", allow_pickle=False) as kept:
        told = json.loads(str(kept["told"]))
        told["looks"].pop("seconds")
        return {**told, **{name: kept[name].tobytes() for name in kept.files if name != "told"}}


def same(whole: Path, cut: Path) -> None:
    clocks = {"result.json", "events.jsonl", "report.html", "model/README.md", "looks.npz"}
    assert digests(cut, clocks) == digests(whole, clocks), cut.name
    assert "model/model.safetensors" in digests(cut, clocks)
    assert result(cut) == result(whole), cut.name
    assert looks(cut) == looks(whole), cut.name
    assert events(cut) == events(whole), cut.name
    for name in ("report.html", "model/README.md"):
        assert (cut / name).is_file()


def admitted(run: Path) -> None:
    """The test rows had been opened by the run that was killed: the note says so."""
    text = (run / "events.jsonl").read_text("utf-8")
    opened = [json.loads(x)["because"] for x in text.splitlines() if "test rows opened" in x]
    assert len(opened) == 1
    assert "a killed run had opened them at" in opened[0]


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(
    tmp_path: Path, marked_csv: Path, quick: list[str]
) -> None:
    """One test, so that the runs are made once whatever the number of workers."""
    ends = kill_and_resume(tmp_path, [f"data.path={marked_csv}", *quick])
    assert ends == dict.fromkeys(MOMENTS, (signal.SIGKILL, 0))
    for moment in MOMENTS:
        same(tmp_path / "undisturbed", tmp_path / moment)
    admitted(tmp_path / "scoring")
