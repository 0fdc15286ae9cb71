"""Imports are silent and cheap."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "pandas", "polars", "accelerate")
BUDGET_SECONDS = 0.3


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)


def best_seconds(*arguments: str, tries: int = 8) -> float:
    """Processor time of the quickest try, interpreter start included. On an idle machine that is
    the time a person waits; other work on the machine changes the wall time, not this."""
    best = float("inf")
    for _ in range(tries):
        before = os.times()
        assert run(*arguments).returncode == 0
        after = os.times()
        spent = after.children_user + after.children_system
        best = min(best, spent - before.children_user - before.children_system)
        if best < BUDGET_SECONDS:
            break
    return best


def test_import_says_nothing_and_succeeds() -> None:
    done = run("-W", "error", "-c", "import holdfast")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, holdfast; print([name for name in {HEAVY} if name in sys.modules])"
    assert run("-c", code).stdout.strip() == "[]"


def test_import_sets_up_no_logging_and_opens_no_network() -> None:
    code = (
        "import logging, sys, holdfast;"
        "print(logging.root.handlers, logging.root.level, 'socket' in sys.modules)"
    )
    assert run("-c", code).stdout.strip() == "[] 30 False"


def test_import_is_quick() -> None:
    assert best_seconds("-c", "import holdfast") < BUDGET_SECONDS


@pytest.mark.skipif(
    importlib.util.find_spec("holdfast.cli") is None
    or importlib.util.find_spec("holdfast.cli.main") is None,
    reason="needs the command line (holdfast.cli.main)",
)
class TestCommandLine:
    HELP = (
        "-c",
        "import sys; sys.argv = ['holdfast', '--help']; from holdfast.cli.main import run; run()",
    )

    def test_help_is_quick(self) -> None:
        assert best_seconds(*self.HELP) < BUDGET_SECONDS

    def test_help_loads_nothing_heavy(self) -> None:
        watch = "import atexit, sys; atexit.register(lambda: print('HEAVY', [name for name in "
        code = f"{watch}{HEAVY} if name in sys.modules])); {self.HELP[1]}"
        assert run("-c", code).stdout.strip().endswith("HEAVY []")
