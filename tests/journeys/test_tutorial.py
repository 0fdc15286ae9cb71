"""The tutorial does what it says: its blocks are run in order, in an empty folder."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def has_command_line() -> bool:
    cli = importlib.util.find_spec("holdfast.cli")
    return cli is not None and importlib.util.find_spec("holdfast.cli.main") is not None


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(TUTORIAL.read_text("utf-8"))


def run_shell(code: str, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def run_python(code: str, names: dict[str, Any]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, str(TUTORIAL), "exec"), names)


def test_every_block_is_shell_or_python() -> None:
    kinds = {kind for kind, _ in blocks()}
    assert kinds == {"shell", "python"}
    assert TUTORIAL.read_text("utf-8").count("```") == 2 * len(blocks())


@pytest.mark.timeout(900)  # seven commands; three minutes where other processes have the cores
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a page for people: `open` without `with`
@pytest.mark.skipif(not has_command_line(), reason="needs the command line (holdfast.cli.main)")
def test_the_tutorial_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for kind, code in blocks():
        if kind == "shell":
            run_shell(code, tmp_path)
        else:
            run_python(code, names)
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert (tmp_path / "runs" / "second" / "result.json").is_file()
