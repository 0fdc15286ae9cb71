"""What benchmarks put a clock around is there: a name that has moved would be timed nowhere."""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ARM = Path(__file__).resolve().parents[2] / "benchmarks" / "peers" / "task_holdfast_arm.py"


def test_every_stretch_that_is_timed_is_a_function_of_the_package() -> None:
    import step_profile

    places = [place for _, place in step_profile.STRETCHES if place != "COLLATE"]
    for place in (*places, *step_profile.COLLATE.values()):
        module, _, path = place.partition(":")
        found = functools.reduce(getattr, path.split("."), importlib.import_module(module))
        assert callable(found), place


@pytest.mark.slow
def test_the_arm_writes_down_the_processor_time_of_its_training(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    sets = [f"--set={one}" for one in (*quick, "train.max_steps=2", "methods.contrast=false")]
    words = ["train", str(marked_csv), "--out", str(tmp_path / "run"), "--quiet", *sets]
    ended = subprocess.run(
        [sys.executable, str(ARM), str(tmp_path), *words], capture_output=True, text=True
    )
    assert not ended.returncode, ended.stderr
    answer = json.loads((tmp_path / "answer.json").read_text("utf-8"))
    assert answer["train_cpu_s"] > 0
