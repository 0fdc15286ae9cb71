"""Two processes on the processor (gloo) give the verdict and the best step of one, and none waits
in vain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("trainer_program.py")
CLOSE = 1e-3


def launch(folder: Path, *settings: str, count: int = 2, code: int | None = 0) -> list[Any]:
    """What each process wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*command, f"--nproc-per-node={count}"] if count > 1 else [sys.executable]
    done = subprocess.run(
        [*command, str(PROGRAM), str(folder), *settings],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    if code is None:
        return [done.returncode, done.stderr]
    assert done.returncode == code, done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(folder.glob("told-*.json"))]


def assert_same(many: list[Any], one: Any) -> None:
    main, *others = many
    assert (main["verdict"], main["best_step"], main["steps"]) == (
        one["verdict"],
        one["best_step"],
        one["steps"],
    )
    assert main["at"] == one["at"]
    assert main["valid"] == pytest.approx(one["valid"], rel=CLOSE, abs=CLOSE)
    for told in many:
        assert told["weights"] == pytest.approx(one["weights"], rel=CLOSE)
        assert told["rate"] == one["rate"]
    assert all(other["steps"] == main["steps"] for other in others)
    assert all(not other["lines"] and not other["at"] for other in others), "one writes and speaks"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "fsdp=yes"])
def test_two_processes_give_the_verdict_and_the_weights_of_one(tmp_path: Path, kind: str) -> None:
    [one] = launch(tmp_path / "one", "batch=8", "epochs=6", count=1)
    # The best checkpoint is not the last, so that all processes must restore it.
    assert one["best_step"] < one["steps"]
    assert_same(launch(tmp_path / "two", "batch=4", "epochs=6", *filter(None, [kind])), one)
    [folder] = (tmp_path / "two/out").iterdir()
    assert {"events.jsonl", "result.json", "report.html"} <= {p.name for p in folder.iterdir()}


@pytest.mark.slow
def test_all_processes_stop_and_change_together(tmp_path: Path) -> None:
    settings = ("epochs=6", "scale_at=2", "stop_after=4")
    [one] = launch(tmp_path / "one", "batch=8", *settings, count=1)
    assert one["steps"] == 12
    assert one["rate"] == pytest.approx(1e-2)
    assert_same(launch(tmp_path / "two", "batch=4", *settings), one)


@pytest.mark.slow
def test_a_loss_that_gathers_from_all_processes_is_measured_by_all(tmp_path: Path) -> None:
    [one] = launch(tmp_path / "one", "batch=8", "epochs=3", "gathers=yes", count=1)
    assert_same(launch(tmp_path / "two", "batch=4", "epochs=3", "gathers=yes"), one)


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["fail_at=2", "fail_in_save=yes"])
def test_a_failure_in_the_main_process_disables_the_guard_in_all(
    tmp_path: Path, failure: str
) -> None:
    main, other = launch(tmp_path, failure, "epochs=3", "save=yes")
    assert main["steps"] == other["steps"] == 12
    assert main["weights"] == other["weights"]
    assert sum("the guard disabled itself" in line for line in main["lines"]) == 1
    assert not other["lines"]


@pytest.mark.slow
def test_a_report_that_fails_leaves_the_best_weights_everywhere(tmp_path: Path) -> None:
    [one] = launch(tmp_path / "one", "batch=8", "epochs=6", count=1)
    main, other = launch(tmp_path / "two", "batch=4", "epochs=6", "fail_in_report=yes")
    assert main["weights"] == other["weights"] == pytest.approx(one["weights"], rel=CLOSE)
    assert sum("the guard disabled itself" in line for line in main["lines"]) == 1


@pytest.mark.slow
def test_a_refusal_ends_every_process(tmp_path: Path) -> None:
    code, told = launch(tmp_path, "refuse=yes", code=None)
    assert code
    assert "has two callbacks of one guard" in told


@pytest.mark.slow
def test_a_killed_run_of_two_processes_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings = ["epochs=4", "save=yes"]
    whole = launch(tmp_path / "whole", *settings)
    code, _ = launch(tmp_path / "killed", *settings, "kill_at=10", code=None)
    assert code
    resumed = launch(tmp_path / "killed", *settings, "resume=yes")
    for name in ("verdict", "best_step", "valid", "at"):
        assert resumed[0][name] == whole[0][name]
    assert [one["weights"] for one in resumed] == [one["weights"] for one in whole]
