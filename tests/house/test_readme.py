"""The README's results link to their pages, and its pictures can be made again."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest


def rows(root: Path) -> list[str]:
    """The lines of the README's table of results, which ``benchmarks/claims.py`` writes."""
    text = (root / "README.md").read_text("utf-8")
    table = text.split("<!-- results -->\n", 1)[1].split("<!-- /results -->")[0]
    return table.splitlines()[2:]


def test_the_table_of_results_holds_good_and_bad_and_links_each_line(root: Path) -> None:
    lines = rows(root)
    assert len(lines) >= 8
    assert any(re.search(r"worse|slower|no difference|too few", line) for line in lines)
    for line in lines:
        link = re.search(r"\]\((benchmarks/results/\w+\.md)\)", line)
        assert link, line
        assert (root / link[1]).exists()


def test_the_readme_is_short(root: Path) -> None:
    """At most 900 words beside its code and tables, and two sentences that say what it is."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", (root / "README.md").read_text("utf-8"), flags=re.S)
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    assert len(re.sub(r"\]\([^)]*\)", "]", prose).split()) <= 900
    introduction = prose.split("![", 1)[0].split("\n", 1)[1]
    assert len(re.findall(r"\.(?=\s|$)", introduction)) == 2


def test_no_page_of_the_docs_links_to_a_claim_that_is_not_there(root: Path) -> None:
    for page in [*(root / "docs").glob("*.md"), root / "README.md"]:
        for link in re.findall(r"benchmarks/results/[\w-]+\.md", page.read_text("utf-8")):
            assert (root / link).exists(), f"{page.name}: {link}"


@pytest.fixture(scope="module")
def maker(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", root / "scripts" / "make_pictures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_long_output_says_what_it_leaves_out(maker: ModuleType) -> None:
    lines = [f"line {i} <&>" for i in range(100)]
    drawn = maker.terminal("\n".join(lines))
    kept = len(re.findall(r"line\u00a0\d+\u00a0&lt;&amp;&gt;", drawn))
    assert f"{100 - kept}\u00a0more\u00a0lines" in drawn
    assert kept == maker.MOST_LINES - 1
    assert "more" not in maker.terminal("short")
    assert "$\u00a0holdfast\u00a0train\u00a0a&amp;b.csv<" in maker.terminal(
        "x", "holdfast train a&b.csv"
    )


def test_every_extra_of_the_readme_can_be_installed(root: Path) -> None:
    part = (root / "README.md").read_text("utf-8").split("| Extra | For |", 1)[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert len(named) >= 7
    assert named <= set(project["optional-dependencies"])


def test_the_pictures_are_small(root: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in (root / "docs" / "images").iterdir()}
    assert {"terminal.svg", "report.png"} <= set(sizes)
    assert max(sizes.values()) < 150_000
