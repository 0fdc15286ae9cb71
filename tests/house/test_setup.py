"""``make setup`` on a machine that has never seen the project: nothing rests on a wheel that only
somebody's cache has."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The arguments of each ``pip install`` that a new machine runs, in order."""
    new = tmp_path_factory.mktemp("machine") / "venv"
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={new}", "setup"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"-m pip (install [^>|]*)", shown.replace("\\\n", " "))
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def pinned(root: Path) -> set[str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {_plain(line.split("==")[0]) for line in lines if "==" in line}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _source_only(arguments: list[str]) -> list[str]:
    return arguments[arguments.index("--no-binary") + 1].split(",")


def test_what_builds_packages_is_pinned_and_installed_before_them(
    installs: list[list[str]], pinned: set[str]
) -> None:
    build, project = installs
    builders = {_plain(name) for name in build[build.index("--no-build-isolation") + 1 :]}
    assert {"hatchling", "editables", "setuptools", "setuptools-scm"} <= builders
    assert builders | {_plain(name) for name in _source_only(project)} <= pinned
    assert project[-2:] == ["-e", ".[dev]"]


@pytest.mark.parametrize("listed", [False, True], ids=["refused", "listed"])
def test_a_package_without_a_wheel_is_refused_unless_it_is_listed(
    installs: list[list[str]], tmp_path: Path, listed: bool
) -> None:
    name = "rouge_score" if listed else "thing"
    assert listed == (name in _source_only(installs[1]))
    with tarfile.open(tmp_path / f"{name}-9.0.tar.gz", "w:gz") as packed:
        for file, text in {
            "setup.py": f"from setuptools import setup\nsetup(name={name!r}, version='9.0')\n",
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n",
        }.items():
            entry = tarfile.TarInfo(f"{name}-9.0/{file}")
            entry.size = len(text)
            packed.addfile(entry, io.BytesIO(text.encode()))
    # As a new machine installs, but from this folder alone and into another.
    ours = [part for part in installs[1][:-2] if part not in ("-c", "constraints.txt")]
    elsewhere = ["--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / "site")]
    command = [sys.executable, "-m", "pip", *ours, *elsewhere, "--no-deps", f"{name}==9.0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode == 0) is listed, ended.stderr
    assert list((tmp_path / "site").glob("*9.0*")) if listed else "No matching" in ended.stderr


def test_ci_installs_into_a_new_environment_without_a_cache(root: Path) -> None:
    script = (root / ".ci" / "run").read_text(encoding="utf-8")
    start = script.index("make test")
    assert script.index("export PIP_NO_CACHE_DIR=1") < start
    assert script.index("rm -rf .venv") < start
