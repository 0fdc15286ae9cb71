"""Plug-ins are found by entry points, loaded when they are asked for, and anybody can bring one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.commands import COMMANDS
from holdfast.core.discovery import Entry

LOADED = (
    "import atexit, sys\n"
    "atexit.register(lambda: print('LOADED', [m for m in sys.modules "
    "if m.startswith('holdfast.plugins')]))\n"
)
MAIN = "from holdfast.cli.main import main; main()"


def run(code: str, *, folder: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python runs ``code`` in ``folder``; the packages of ``site`` are installed."""
    paths = [str(site)] if site else []
    paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_import_and_a_training_load_no_plug_in(tmp_path: Path) -> None:
    rows = [f"the {thing} is {word},{word}" for thing in THINGS for word in ("good", "bad")]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n", "utf-8")
    typed = "sys.argv = ['holdfast', 'train', 'rows.csv', '--set', 'train.max_steps=2']\n"
    done = run(LOADED + "import holdfast\n" + typed + MAIN, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_a_command_of_a_plug_in_loads_it(tmp_path: Path) -> None:
    typed = "sys.argv = ['holdfast', 'forget', '--help']\n"
    done = run(LOADED + typed + MAIN, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "holdfast.plugins.store.forget" in done.stdout


PACKAGE = '''
from typing import Annotated
import typer
from holdfast.core.discovery import Entry

def command(name: Annotated[str, typer.Argument(help="Who is greeted.")]) -> None:
    """Greet somebody."""
    print(f"hello {name}")

HELLO = Entry("greeter", "Greet somebody.", "holdfast hello Ada")
'''


def installed(site: Path, code: str) -> Path:
    """A package of somebody else's, as an installer would lay it down."""
    (site / "greeter.py").parent.mkdir(parents=True)
    (site / "greeter.py").write_text(code, "utf-8")
    facts = site / "greeter-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n", "utf-8")
    (facts / "entry_points.txt").write_text("[holdfast.commands]\nhello = greeter:HELLO\n", "utf-8")
    return site


def test_a_third_party_needs_no_memory_for_a_library_that_it_does_not_name() -> None:
    assert Entry("greeter", "Greet somebody.").imports is None
    named = {name for name, one in COMMANDS.items() if one.imports == "torch"}
    assert {"train", "predict", "cv", "explain"} <= named
    assert not named & {"report", "schema"}


def test_a_third_party_brings_a_command(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", PACKAGE)
    said = run(
        f"import sys; sys.argv = ['holdfast', 'hello', 'Ada']; {MAIN}", folder=tmp_path, site=site
    )
    assert (said.returncode, said.stdout) == (0, "hello Ada\n")
    listed = run(
        f"import sys; sys.argv = ['holdfast', '--help']; {MAIN}", folder=tmp_path, site=site
    )
    assert "  hello      Greet somebody.\n" in listed.stdout


def test_one_that_cannot_be_loaded_is_named_in_one_sentence(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", "import a_package_that_nobody_has\n" + PACKAGE)
    said = run(
        f"import sys; sys.argv = ['holdfast', 'hello', 'Ada']; {MAIN}", folder=tmp_path, site=site
    )
    assert said.returncode == 2
    assert "hello of greeter" in said.stderr
    assert "a_package_that_nobody_has" in said.stderr
    assert "Traceback" not in said.stderr
    listed = run(
        f"import sys; sys.argv = ['holdfast', '--help']; {MAIN}", folder=tmp_path, site=site
    )
    assert listed.returncode == 0
    assert "  hello      cannot be loaded from greeter:HELLO" in listed.stdout
    # Every other command works.
    fine = run(
        f"import sys; sys.argv = ['holdfast', 'train', '--help']; {MAIN}",
        folder=tmp_path,
        site=site,
    )
    assert fine.returncode == 0


THINGS = [
    f"{colour} {thing}"
    for colour in ("red", "blue", "old", "new", "large")
    for thing in ("lamp", "chair", "table", "clock", "radio", "door", "cup", "bag")
]
