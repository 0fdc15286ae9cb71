"""What works where PyTorch and Transformers are not installed, and what other commands say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# As if the packages had not been installed: they cannot be found.
WITHOUT = """
import importlib.machinery, sys
found = importlib.machinery.PathFinder.find_spec
def find(cls, name, path=None, target=None):
    return None if name.split(".")[0] in ("torch", "transformers") else found(name, path, target)
importlib.machinery.PathFinder.find_spec = classmethod(find)
from holdfast.cli.main import run
run()
"""


def without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_an_audit_without_a_model_finds_the_same(marked_csv: Path, tmp_path: Path) -> None:
    header, *lines = marked_csv.read_text("utf-8").splitlines()
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join([header, *lines, *lines[:20]]), "utf-8")
    audit = ("audit", rows, "--set", "audit.rows=0", "--json", "--quiet")
    ended = without_torch(*audit)
    assert ended.returncode == 0, ended.stderr
    usual = [sys.executable, "-m", "holdfast", *map(str, audit)]
    same = subprocess.run(usual, capture_output=True, text=True, timeout=120, check=True)
    found, usual_found = json.loads(ended.stdout), json.loads(same.stdout)
    for one in (found, usual_found):
        one["looked_at"] = list(one["looked_at"])  # without their seconds
    assert found == usual_found
    assert found["findings"]


def test_a_log_is_diagnosed(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    lines = [f"{step},{2 / (step + 1)},{1 + abs(step - 4) / 10}" for step in range(12)]
    log.write_text("\n".join(["epoch,train_loss,valid_loss", *lines]), "utf-8")
    ended = without_torch("diagnose", log)
    assert ended.returncode == 0, ended.stderr
    assert "validation loss" in ended.stdout


@pytest.mark.parametrize("command", ["train", "audit"])
def test_other_commands_name_what_is_missing(
    command: str, marked_csv: Path, tmp_path: Path
) -> None:
    ended = without_torch(command, marked_csv, *(["--out", tmp_path] if command == "train" else []))
    assert ended.returncode == 2, ended.stderr
    assert "torch" in ended.stderr
    assert "not installed" in ended.stderr
    assert "pip install torch" in ended.stderr
