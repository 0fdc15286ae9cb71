"""The README's figures are those of the benchmarks, and its pictures can be made again."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest


def results(root: Path) -> dict[str, str]:
    """The text below each heading of RESULTS.md, by the heading's anchor."""
    text = (root / "benchmarks" / "RESULTS.md").read_text("utf-8")
    parts = re.split(r"^#{2,3} (.+)$", text, flags=re.MULTILINE)[1:]
    anchors = [re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in parts[::2]]
    return dict(zip(anchors, parts[1::2], strict=True))


def rows(root: Path) -> list[str]:
    """The lines of the README's table of results."""
    part = (root / "README.md").read_text("utf-8").split("## Results\n", 1)[1].split("\n## ")[0]
    return [line for line in part.splitlines() if line.startswith("|")][2:]


def figures(line: str) -> list[str]:
    """Numbers with a decimal point, and counts: ``47 of 61``."""
    told = re.sub(r"\]\([^)]*\)", "]", line)
    return re.findall(r"\d+ of \d+|\d+\.\d+", told)


def test_every_figure_of_the_readme_stands_in_the_results(root: Path) -> None:
    found, wrong, anchor = results(root), [], ""
    for line in rows(root):
        link = re.search(r"RESULTS\.md#([\w-]+)", line)
        anchor = link[1] if link else anchor
        wrong += [
            f"{figure} (#{anchor})"
            for figure in figures(line)
            if figure not in found.get(anchor, "")
        ]
    assert not wrong, "the README says what RESULTS.md does not; copy the new figures"


def test_the_table_holds_good_and_bad(root: Path) -> None:
    lines = rows(root)
    assert len(lines) >= 8
    assert sum(len(figures(line)) for line in lines) >= 20
    assert any("worse" in line or "slower" in line for line in lines)


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
