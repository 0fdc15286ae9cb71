"""What is written down in the project is true, short and free of this machine."""

from __future__ import annotations

import ast
import itertools
import os
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

MAX_BODY_LINES_P90 = 30

# Written in pieces, so that this file does not find itself.
# `somebody` is the name of a made-up user in tests and examples.
PATHS = re.compile(r"(?<![\w.\-/}])/(?:home|Users|root|work|mnt)/" + r"(?!somebody\b)\w")
HOSTS = re.compile(
    r"pypi\." + r"org|python" + r"hosted\.org|download\.py" + r"torch\.org|deb\.deb" + r"ian\.org"
    r"|registry\.npm" + r"js|conda\.ana" + r"conda\.org"
)


def lines_that_match(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    return [
        f"{path.name}:{number}: {line.strip()[:100]}"
        for path in files
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_file_names_a_folder_of_some_machine(tracked: list[Path]) -> None:
    assert lines_that_match(PATHS, tracked) == []


def test_no_file_names_the_host_of_a_package_registry(tracked: list[Path]) -> None:
    assert lines_that_match(HOSTS, tracked) == []


def test_the_search_for_paths_and_hosts_can_find_them(tmp_path: Path) -> None:
    file = tmp_path / "note.md"
    file.write_text(
        "see /"
        + "home/me/x\nfrom pypi."
        + "org\n/homely, ./work/x, /"
        + "home/somebody/x are fine\n"
    )
    assert len(lines_that_match(PATHS, [file])) == len(lines_that_match(HOSTS, [file])) == 1


def test_the_formatter_is_switched_off_nowhere(tracked: list[Path]) -> None:
    switch = re.compile("# *fmt" + ": *(?:off|skip)|# *yapf" + ": *disable")
    assert lines_that_match(switch, [path for path in tracked if path.suffix == ".py"]) == []


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[ast.get_docstring(function) is not None :]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.slow
def test_nine_functions_in_ten_have_at_most_30_lines(source: Path) -> None:
    nodes = [
        node for path in source.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
    ]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = [body_lines(node) for node in nodes if isinstance(node, kinds)]
    assert statistics.quantiles(lengths, n=10)[-1] <= MAX_BODY_LINES_P90


def test_every_link_between_the_papers_leads_somewhere(root: Path) -> None:
    papers = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("benchmarks/*.md")]
    broken = [
        f"{paper.name}: {target}"
        for paper in papers
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", paper.read_text("utf-8"))
        if not (paper.parent / target).exists()
    ]
    assert broken == []


def test_every_make_target_of_the_readme_exists(root: Path) -> None:
    named = set(re.findall(r"make ([a-z]+)", (root / "README.md").read_text("utf-8")))
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"setup", "demo", "check", "test", "bench"} <= named
    assert named <= targets


def test_every_command_of_the_readme_exists(root: Path) -> None:
    pytest.importorskip("holdfast.cli.main", reason="needs the command line")
    rows = re.findall(r"^\| `holdfast ([a-z]+)", (root / "README.md").read_text("utf-8"), re.M)
    assert rows, "the README has no table of commands"
    helped = subprocess.run(
        [sys.executable, "-c", "from holdfast.cli.main import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    offered = set(re.findall(r"^[ │|]*([a-z]+) {2,}", helped.stdout, re.MULTILINE))
    assert set(rows) == offered - {"run"}


def test_the_changelog_knows_the_version(root: Path) -> None:
    from holdfast import __version__

    assert f"## {__version__}" in (root / "CHANGELOG.md").read_text("utf-8")


def test_every_direct_dependency_is_pinned_exactly(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    wanted = [*project["dependencies"], *extras]
    names = {normal(re.split(r"[\[>=<~! ;]", requirement)[0]) for requirement in wanted}
    lines = (root / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+", pin)] == []
    assert names - {normal(pin.split("==")[0]) for pin in pins} == {"holdfast"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_recipe_reference_has_every_key_and_no_other(root: Path) -> None:
    recipe = pytest.importorskip("holdfast.recipe")
    names = pytest.importorskip("holdfast.core.setting_names").PLAIN_NAMES
    text = (root / "docs" / "recipe.md").read_text("utf-8")
    described = re.findall(r"^\| `([\w.]+)`(?: \(also: `([\w.]+)`\))? \|", text, re.MULTILINE)
    assert sorted(old or key for key, old in described) == sorted(recipe.known_keys())
    assert {old: plain for plain, old in described if old} == names


def test_the_table_of_defaults_is_that_of_the_code(root: Path) -> None:
    from holdfast.plan.defaults import DEFAULTS_TABLE

    section = text_of(root / "docs/recipe.md").partition("## The table of defaults")[2]
    lines = [line.split("|")[2:8] for line in section.splitlines() if line.startswith("|")][2:]

    def numbers(cells: list[str]) -> list[float]:
        known = {"–": 0.0, "any": float("inf")}
        words = [cell.split()[0].replace(",", "") for cell in cells]
        return [known[word] if word in known else float(word) for word in words]

    assert [numbers(cells) for cells in lines] == [
        [
            float("inf") if one.rows is None else one.rows,
            one.folds,
            one.contrast_steps,
            one.epochs,
            one.batch_size,
            one.learning_rate,
        ]
        for one in DEFAULTS_TABLE
    ]


@pytest.mark.slow
def test_every_class_of_the_glossary_exists_and_has_one_meaning(root: Path, source: Path) -> None:
    glossary = (root / "docs/design.md").read_text("utf-8").partition("## Glossary")[2]
    named = set(re.findall(r"`([A-Z]\w+)`", glossary))
    assert {"PreparedData", "FittedModel", "Predictor", "Snapshot", "Verdict"} <= named
    trees = [ast.parse(path.read_text("utf-8")) for path in source.rglob("*.py")]
    public = [
        node.name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in named
    ]
    assert sorted(public) == sorted(named)
