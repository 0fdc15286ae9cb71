"""What SKILL.md, the GitHub Action and the pre-commit hook run exists, and does what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.core.labels import VERDICTS
from holdfast.core.run_shapes import RESULT_SHAPE

Parse = Callable[[list[str]], None]
ROOT = Path(__file__).resolve().parents[2]
SKILL = (ROOT / "SKILL.md").read_text("utf-8")


def section(title: str) -> str:
    return SKILL.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str) -> list[str]:
    rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("|")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_every_command_of_the_skill_has_options_that_exist(parse: Parse) -> None:
    commands = re.findall(r"`holdfast ([a-z]+ [^`]*)`", SKILL)
    assert len(commands) > 10
    for command in commands:
        if "NAME" not in command:
            parse(shlex.split(command.replace("…", "5")))


def test_every_verdict_has_a_next_step() -> None:
    assert set(first_cells("What to do about a verdict")) == set(VERDICTS)


def test_every_field_of_the_skill_is_in_the_schema() -> None:
    fields = first_cells("What to read")
    assert "test.metrics.NAME" in fields
    properties: Any = RESULT_SHAPE.schema["properties"]
    last = ""
    for field in fields:
        last = f"{last.partition('.')[0]}{field}" if field.startswith(".") else field
        schema = {"properties": properties}
        for part in last.split("."):
            schema = schema["properties"][part] if "properties" in schema else {}


def test_the_header_has_a_name_and_says_when_to_use_it() -> None:
    header = yaml.safe_load(SKILL.split("---")[1])
    assert header["name"] == "holdfast"
    assert 100 < len(header["description"]) < 1024


def run_step(step: dict[str, Any], inputs: dict[str, str], folder: Path) -> tuple[int, str]:
    """A step of the composite action, as GitHub runs it: its environment names its inputs."""
    given = {
        key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], value)
        for key, value in step["env"].items()
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, **given, "PATH": path, "GITHUB_STEP_SUMMARY": str(folder / "summary")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("fail_on", "code"), [("leaks", 3), ("", 0)])
def test_the_action_audits_and_fails_on_what_was_named(
    tmp_path: Path, fail_on: str, code: int
) -> None:
    rows = [f"a text about the number {n} and a {n * 7}th one,{'ab'[n % 2]}" for n in range(40)]
    (tmp_path / "my rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "test.csv").write_text("text,label\n" + "\n".join(rows[:4]) + "\n")
    action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    inputs = {name: one.get("default", "") for name, one in action["inputs"].items()}
    inputs |= {"data": "my rows.csv", "fail-on": fail_on, "arguments": "--against test.csv"}
    (step,) = [one for one in action["runs"]["steps"] if one.get("name") == "Audit"]
    status, told = run_step(step, inputs, tmp_path)
    assert status == code, told
    assert json.loads((tmp_path / "audit.json").read_text())["rows"] == 40
    assert "<html" in (tmp_path / "audit.html").read_text("utf-8")
    assert "leaks" in (tmp_path / "summary").read_text("utf-8")


def test_the_hook_runs_a_command_that_exists(parse: Parse) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert hook["pass_filenames"] is False, "an audit takes one data set"
    words = shlex.split(hook["entry"])
    assert words[0] == "holdfast"
    parse([*words[1:], "reviews.csv", *hook["args"]])
    assert re.search(hook["files"], "data/reviews.csv")
    assert not re.search(hook["files"], "src/reviews.py")
