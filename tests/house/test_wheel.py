"""A wheel holds everything that the package needs at run time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import holdfast


@pytest.fixture(scope="module")
def packed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_tracked_file_of_the_package(
    packed: set[str], tracked: list[Path], root: Path
) -> None:
    source = root / "src"
    ours = {str(path.relative_to(source)) for path in tracked if path.is_relative_to(source)}
    assert ours - packed == set()


def test_the_wheel_holds_the_demo_and_the_licence(packed: set[str]) -> None:
    demo = {"packages.csv.gz", "recipe.yaml", "ATTRIBUTION.md"}
    assert {f"holdfast/demo/{name}" for name in demo} | {"holdfast/py.typed"} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)


def test_the_wheel_holds_nothing_else(packed: set[str]) -> None:
    tops = {name.split("/")[0] for name in packed}
    assert {top for top in tops if not top.startswith("holdfast-")} == {"holdfast"}


def test_a_release_runs_targets_and_files_that_exist(root: Path) -> None:
    steps = [
        step
        for name in ("ci", "release")
        for job in yaml.safe_load(
            (root / ".github" / "workflows" / f"{name}.yml").read_text("utf-8")
        )["jobs"].values()
        for step in job["steps"]
    ]
    commands = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in commands
    assert (root / ".ci" / "run").stat().st_mode & 0o100
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {c.removeprefix("make ") for c in commands if c.startswith("make ")} <= targets
    (check,) = [command for command in commands if "_version.py" in command]
    for tag, code in ((f"v{holdfast.__version__}", 0), ("v9.9.9", 1)):
        done = subprocess.run(
            ["bash", "-c", check], cwd=root, env={**os.environ, "GITHUB_REF_NAME": tag}, check=False
        )
        assert done.returncode == code


def test_the_citation_has_the_version(root: Path) -> None:
    cited = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == holdfast.__version__
