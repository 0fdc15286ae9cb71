"""The drawings of the house agree with the house."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import grimp
import pytest


def contract(root: Path) -> list[str]:
    settings: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    layers: list[str] = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return layers


def tree(text: str) -> list[str]:
    """The names in the drawing that begins with ``src/holdfast/``, in its order."""
    drawing = text.split("src/holdfast/\n", 1)[1].split("```", 1)[0]
    return re.findall(r"^[├└]── ([\w.]+)/?", drawing, re.MULTILINE)


def test_the_contract_names_every_package(root: Path, packages: set[str]) -> None:
    named = {layer.strip("()") for layer in contract(root)}
    assert packages <= named, f"not named in the import contract: {sorted(packages - named)}"


def test_the_design_begins_with_what_the_contract_prints(root: Path) -> None:
    """Except for the counts of files and imports."""
    page = (root / "docs" / "design.md").read_text("utf-8")
    shown = page.partition("```text\n$ lint-imports\n…\n")[2].partition("```")[0]
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], cwd=root, capture_output=True, text=True, check=True)
    assert shown
    for part in shown.split("…\n"):
        assert without_counts(part) in without_counts(done.stdout)


def without_counts(text: str) -> str:
    return re.sub(r"\d+(?= (?:files|dependencies))", "#", text)


def test_the_contract_demands_only_packages_that_exist(root: Path, packages: set[str]) -> None:
    demanded = {layer for layer in contract(root) if not layer.startswith("(")}
    assert demanded <= packages, f"named, but not there: {sorted(demanded - packages)}"


def test_the_design_draws_the_folders_that_exist(root: Path, source: Path) -> None:
    drawn = set(tree((root / "docs" / "design.md").read_text("utf-8")))
    folders = {path.name for path in source.iterdir() if path.is_dir() and holds_something(path)}
    passed = {"__init__.py", "__main__.py", "_version.py"}
    modules = {path.name for path in source.glob("*.py")} - passed
    assert drawn == folders | modules


def holds_something(folder: Path) -> bool:
    return any(path.is_file() and "__pycache__" not in path.parts for path in folder.rglob("*"))


def test_the_design_draws_the_packages_in_the_order_of_the_contract(root: Path) -> None:
    order = [layer.strip("()") for layer in reversed(contract(root))]
    text = (root / "docs" / "design.md").read_text("utf-8")
    drawn = [name.removesuffix(".py") for name in tree(text)]
    drawn = [name for name in drawn if name in order]
    assert drawn == sorted(drawn, key=order.index)


def knowledge(root: Path) -> dict[str, set[str]]:
    """The table of docs/design.md: a package and those it imports; no entry where it says all."""
    text = (root / "docs" / "design.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    lists = {package: known for package, known in rows if known != "all above"}
    return {package: set(re.findall(r"\w+", known)) for package, known in lists.items()}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("holdfast", exclude_type_checking_imports=True, cache_dir=None)


def test_a_package_knows_only_what_the_table_says(root: Path, graph: grimp.ImportGraph) -> None:
    allowed = knowledge(root)
    assert "core" in allowed, "the table of docs/design.md was not found"
    strangers = {
        f"{importer} imports {imported}"
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if package(importer) in allowed
        and package(imported) not in {package(importer), "", "_version"}
        if package(imported) not in allowed[package(importer)]
    }
    assert not strangers


def test_the_table_describes_every_package(root: Path, packages: set[str]) -> None:
    text = (root / "docs" / "design.md").read_text("utf-8")
    described = set(re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE))
    assert packages <= described, f"not in docs/design.md: {sorted(packages - described)}"


def package(module: str) -> str:
    return f"{module}.".split(".")[1]


def circles(graph: grimp.ImportGraph) -> list[set[str]]:
    """The sets of modules that all import one another, directly or through others (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        open_.append(module)
        for imported in graph.find_modules_directly_imported_by(module):
            if imported not in number:
                visit(imported)
            if imported in open_:
                lowest[module] = min(lowest[module], lowest[imported])
        if lowest[module] == number[module]:
            place = open_.index(module)
            found.append(set(open_[place:]))
            del open_[place:]

    for module in sorted(graph.modules):
        if module not in number:
            visit(module)
    return [circle for circle in found if len(circle) > 1]


def test_no_modules_import_one_another_not_even_for_their_types() -> None:
    whole = grimp.build_graph("holdfast", exclude_type_checking_imports=False, cache_dir=None)
    found = [sorted(circle) for circle in circles(whole)]
    assert not found, f"import one another: {found}"


def test_a_circle_is_found_through_a_third_module() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [{"a", "b", "c"}]
