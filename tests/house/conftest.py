"""Where the house's papers are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def source(root: Path) -> Path:
    return root / "src" / "holdfast"


@pytest.fixture(scope="session")
def packages(source: Path) -> set[str]:
    """Every package: a folder with code, or a module at the top, but for ``_version``."""
    folders = {path.parent.name for path in source.glob("*/*.py")}
    modules = {path.stem for path in source.glob("*.py")} - {"__init__", "_version", "__main__"}
    return folders | modules


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """The files that git keeps, or would keep on the next ``git add``."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    files = [root / line for line in listed.stdout.splitlines()]
    return [path for path in files if path.is_file()]


@pytest.fixture(scope="session")
def parse() -> Callable[[list[str]], None]:
    """Read a command line as the program does, and run nothing."""
    import typer.main

    from holdfast.cli.main import app

    command: Any = typer.main.get_command(app)

    def read(words: list[str]) -> None:
        context = command.make_context("holdfast", [words[0]], resilient_parsing=True)
        own = command.get_command(context, words[0])
        own.make_context(words[0], list(words[1:]), parent=context)

    return read


@pytest.fixture(scope="session")
def options() -> Callable[[str], set[str]]:
    """The options of a command, by its name."""
    import typer.main

    from holdfast.cli.main import app

    command: Any = typer.main.get_command(app)

    def read(name: str) -> set[str]:
        context = command.make_context("holdfast", [name], resilient_parsing=True)
        own = command.get_command(context, name)
        assert own is not None, f"{name} is not a command"
        return {word for one in own.params for word in (*one.opts, *one.secondary_opts)} | {
            "--help"
        }

    return read
