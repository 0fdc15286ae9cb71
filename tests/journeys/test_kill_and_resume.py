"""``kill -9`` at seven moments, then ``--resume``: byte for byte what an undisturbed run gives."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("kill_runs.py")
MOMENTS = ["before-recipe", "step", "checkpoint", "model", "scoring", "result", "report"]
TIMES = {"timing", "peak_memory_mb", "created"}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, marked_csv: Path, quick: list[str]
) -> tuple[Path, dict[str, tuple[int, int]]]:
    """The folder of the runs, and how each was killed and how its resume ended."""
    folder = tmp_path_factory.mktemp("killed")
    settings = [f"data.path={marked_csv}", *quick]
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *settings],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in done.stdout.splitlines()}
    assert ends.pop("undisturbed") == (0, 0), done.stderr
    return folder, ends


def digests(run: Path, skipped: set[str]) -> dict[str, str]:
    files = [path for path in run.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files if str(path.relative_to(run)) not in skipped
    }  # fmt: skip


def events(run: Path) -> list[dict[str, Any]]:
    """Without clocks; the note that the test rows were opened names the killed run's time."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    kept = [{k: v for k, v in line.items() if k not in ("seconds", "at")} for line in lines]
    for line in kept:
        if line.get("what") == "test rows opened":
            line["because"] = line["because"].split(";")[0]
    return kept


def result(run: Path) -> dict[str, Any]:
    whole = json.loads((run / "result.json").read_text("utf-8"))
    whole["test"].pop("opened_at")
    return {key: value for key, value in whole.items() if key not in TIMES}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_if_it_had_not_been(runs: Any, moment: str) -> None:
    folder, ends = runs
    died, resumed = ends[moment]
    assert died == signal.SIGKILL
    assert resumed == 0
    whole, cut = folder / "undisturbed", folder / moment
    clocks = {"result.json", "events.jsonl", "report.html", "model/README.md"}
    assert digests(cut, clocks) == digests(whole, clocks)
    assert "model/model.safetensors" in digests(cut, clocks)
    assert result(cut) == result(whole)
    assert events(cut) == events(whole)
    for name in ("report.html", "model/README.md"):
        assert (cut / name).is_file()


def test_every_moment_was_tried(runs: Any) -> None:
    assert list(runs[1]) == MOMENTS


def test_a_second_opening_of_the_test_rows_is_admitted(runs: Any) -> None:
    folder, _ = runs
    opened = [
        json.loads(line)["because"]
        for line in (folder / "scoring" / "events.jsonl").read_text("utf-8").splitlines()
        if "test rows opened" in line
    ]
    assert len(opened) == 1
    assert "a killed run had opened them at" in opened[0]
