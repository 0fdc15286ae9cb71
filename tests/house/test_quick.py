"""``make quick``: every package has tests to run; one that outgrows the budget is reported."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LATE = "12.50s call     tests/stats/test_slow.py::test_that_dawdles\n3 passed in 70.00s\n"


@pytest.fixture(scope="module")
def quick(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("holdfast_quick", root / "scripts" / "quick.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Shell:
    """Answers commands instead of running them; ``failing`` is the program that fails."""

    def __init__(self, failing: str = "", said: str = LATE) -> None:
        self.failing, self.said, self.ran = failing, said, []

    ran: list[list[str]]

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.ran.append(list(command))
        failed = Path(command[0]).name == self.failing
        return subprocess.CompletedProcess(command, int(failed), self.said, "")


def clock(seconds: float) -> Any:
    times = iter([0.0, seconds])
    return lambda: next(times)


def test_every_package_has_tests_that_exist(
    quick: ModuleType, root: Path, packages: set[str]
) -> None:
    assert packages <= set(quick.packages())
    for package in quick.packages():
        missing = [path for path in quick.tests_of(package) if not (root / path).exists()]
        assert missing == [], f"{package}: tell scripts/quick.py where its tests lie"


def test_the_page_on_the_tests_begins_with_the_tests_of_a_package(
    quick: ModuleType, root: Path
) -> None:
    page = (root / "docs" / "testing.md").read_text("utf-8")
    begins = r"# The tests\n\n```text\n\$ pytest -q tests/(\w+)\n"
    printed = r"[. \[\]\d%\n]+\n\d+ passed in [\d.]+s\n```"
    shown = re.match(begins + printed, page)
    assert shown
    assert f"tests/{shown[1]}" in quick.tests_of(shown[1])


def test_a_packages_work_is_form_types_contract_house_and_its_own_tests(quick: ModuleType) -> None:
    shell = Shell(said="1 passed\n")
    assert quick.check(["stats"], 2, shell, clock(10)) == 0
    programs = [Path(command[0]).name for command in shell.ran]
    assert programs == ["ruff", "ruff", "lint-imports", "mypy", "pytest"]
    assert {"tests/house", "tests/stats", "-x"} <= set(shell.ran[-1])


def test_a_package_that_passes_the_budget_fails_and_names_its_slowest(
    quick: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick.BUDGET == 60
    assert quick.check(["stats"], 2, Shell(), clock(61)) == 1
    said = capsys.readouterr().out
    assert "above the 60 s" in said
    assert "12.50 s  tests/stats/test_slow.py::test_that_dawdles" in said


def test_it_stops_at_the_first_failure(
    quick: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(failing="lint-imports", said="stats imports pipeline\n")
    assert quick.check(["stats"], 2, shell, clock(1)) == 1
    assert [Path(command[0]).name for command in shell.ran][-1] == "lint-imports"
    assert "stats imports pipeline" in capsys.readouterr().out


def test_the_packages_of_changed_files_are_found(quick: ModuleType) -> None:
    told = (
        " M src/holdfast/stats/trend.py\nR  a.py -> tests/split/test_x.py\n"
        "?? src/holdfast/api.py\n M README.md\n"
    )
    assert quick.changed(Shell(said=told)) == ("api", "split", "stats")
    told = ["", "src/holdfast/core/input_errors.py\n"]
    shell = Shell()
    answer = shell.__call__

    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        shell.said = told[len(shell.ran)]
        return answer(command)

    assert quick.changed(run) == ("core",)


def test_the_makefile_and_the_pages_name_it(root: Path) -> None:
    assert "scripts/quick.py $(PACKAGE)" in (root / "Makefile").read_text("utf-8")
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "make quick" in (root / page).read_text("utf-8"), page
