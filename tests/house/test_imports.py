"""Imports are silent and cheap."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "pandas", "polars", "accelerate")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)


def modules(code: str) -> int:
    """How many modules are loaded when ``code`` has run: what a start costs, without a clock."""
    count = "import atexit, sys; atexit.register(lambda: print(len(sys.modules)))"
    return int(run("-c", f"{count}; {code}").stdout.split()[-1])


def test_import_says_nothing_and_succeeds() -> None:
    done = run("-W", "error", "-c", "import holdfast")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, holdfast; print([name for name in {HEAVY} if name in sys.modules])"
    assert run("-c", code).stdout.strip() == "[]"


def test_a_page_is_made_without_what_computes() -> None:
    """The sections of the analyses are declared in modules of their own, which are light."""
    code = (
        "import sys; from holdfast.report.contents import report_sections; import "
        "holdfast.report.card;"
        "assert {'slices', 'fairness', 'memory'} <= {one.key for one in report_sections()};"
        f"loaded = [*{HEAVY}, 'holdfast.analyses.analysis', 'holdfast.runs', 'holdfast.training'];"
        "print([name for name in loaded if name in sys.modules])"
    )
    assert run("-c", code).stdout.strip() == "[]"


def test_import_sets_up_no_logging_and_opens_no_network() -> None:
    code = (
        "import logging, sys, holdfast;"
        "print(logging.root.handlers, logging.root.level, 'socket' in sys.modules)"
    )
    assert run("-c", code).stdout.strip() == "[] 30 False"


def test_import_loads_little() -> None:
    assert modules("import holdfast") < 100


@pytest.mark.skipif(
    importlib.util.find_spec("holdfast.cli") is None
    or importlib.util.find_spec("holdfast.cli.main") is None,
    reason="needs the command line (holdfast.cli.main)",
)
class TestCommandLine:
    HELP = (
        "-c",
        "import sys; sys.argv = ['holdfast', '--help']; from holdfast.cli.main import main; main()",
    )

    def test_help_loads_little(self) -> None:
        """Small modules are about a millisecond each; a fifth of them read entry points."""
        assert modules(self.HELP[1]) < 340

    def test_help_loads_nothing_heavy(self) -> None:
        watch = "import atexit, sys; atexit.register(lambda: print('HEAVY', [name for name in "
        code = f"{watch}{(*HEAVY, 'numpy')} if name in sys.modules])); {self.HELP[1]}"
        assert run("-c", code).stdout.strip().endswith("HEAVY []")

    @pytest.mark.parametrize(
        "command",
        [
            *(f"{name} none.csv" for name in ("train", "audit", "cv", "tune", "choose", "lr")),
            *(f"{name} none none.csv" for name in ("predict", "evaluate", "explain")),
        ],
    )
    def test_a_missing_file_is_refused_before_anything_heavy_is_loaded(self, command: str) -> None:
        watch = "import atexit, sys; atexit.register(lambda: print('HEAVY', [name for name in "
        words = ["holdfast", *command.split()]
        code = (
            f"{watch}{HEAVY} if name in sys.modules])); sys.argv = {words};"
            "from holdfast.cli.main import main; main()"
        )
        done = run("-c", code)
        assert done.returncode == 2
        assert done.stderr.startswith("holdfast: none")
        assert done.stdout == "HEAVY []\n"
