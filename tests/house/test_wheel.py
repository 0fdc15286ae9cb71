"""A wheel holds everything that the package needs at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


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
