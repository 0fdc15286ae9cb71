"""What CONTRIBUTING.md adds as an example is built in a copy of the package, and works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = re.compile(r"^<!-- file: (?P<path>\S+) -->\n```python\n(?P<code>.*?)^```$", re.M | re.S)
LINE = re.compile(
    r"^<!-- line of (?P<table>\w+): (?P<path>\S+) -->\n```text\n(?P<code>.*?)^```$", re.M | re.S
)
ENTRIES = re.compile(r"^<!-- entry points -->\n```toml\n(?P<text>.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text("utf-8")


@pytest.fixture(scope="module")
def site(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package and every example in its place, as if installed."""
    site = tmp_path_factory.mktemp("site")
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "holdfast", site / "holdfast", ignore=left_out)
    for example in FILE.finditer(page):
        path = site / "holdfast" / example["path"]
        path.parent.mkdir(exist_ok=True)
        assert not path.exists()
        path.resolve().write_text(example["code"], "utf-8")
    for line in LINE.finditer(page):
        path = site / "holdfast" / line["path"]
        before, name, after = path.read_text("utf-8").partition(f"{line['table']} = (\n")
        assert name
        path.write_text(before + name + after.replace("\n)\n", f"\n{line['code']})\n", 1), "utf-8")
    facts = site / "greeter-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n", "utf-8")
    (entries,) = ENTRIES.findall(page)
    lines = re.sub(r'project\.entry-points\."([\w.]+)"', r"\1", entries).replace('"', "")
    (facts / "entry_points.txt").write_text(lines, "utf-8")
    return site


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    colours, things = ("red", "blue", "old", "new", "large"), ("lamp", "chair", "table", "clock")
    texts = [
        (f"the {colour} {thing} number {n} is {word}", word)
        for colour in colours
        for thing in things
        for n in range(2)
        for word in ("good", "bad")
    ]
    lines = [
        f"{text.upper() if at in (3, 8) else text},{word}" for at, (text, word) in enumerate(texts)
    ]
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    return path


def typed(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_check_is_made_of_its_file_alone(site: Path, rows: Path, tmp_path: Path) -> None:
    audit: dict[str, Any] = json.loads(typed(site, tmp_path, "audit", str(rows), "--json").stdout)
    (finding,) = [one for one in audit["findings"] if one["check"] == "shouting"]
    assert sorted(finding["rows"]) == [3, 8]


def test_the_method_is_a_key_of_the_recipe(site: Path, rows: Path, tmp_path: Path) -> None:
    sets = ("train.max_steps=2", "methods.confidence_penalty.beta=0.5")
    words = [part for one in sets for part in ("--set", one)]
    typed(site, tmp_path, "train", str(rows), *words, "--out", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert result["settings"]["methods"]["confidence_penalty"] == {"beta": 0.5}
    # Where it is not known, it is no key.
    with pytest.raises(subprocess.CalledProcessError) as refused:
        typed(ROOT / "src", tmp_path, "train", str(rows), *words, "--out", "other")
    assert refused.value.returncode == 2


def test_the_analysis_is_a_block_of_the_result_and_a_section_of_the_report(
    site: Path, rows: Path, tmp_path: Path
) -> None:
    typed(site, tmp_path, "train", str(rows), "--set", "train.max_steps=2", "--out", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    rates = [result["lengths"][name] for name in ("long", "short")]
    assert all(rate["low"] <= rate["value"] <= rate["high"] for rate in rates)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert '<section id="lengths"' in page
    assert f"texts above {result['lengths']['above']:.0f} characters" in page
    card = (tmp_path / "run" / "model" / "README.md").read_text("utf-8")
    assert all("longer texts" in text for text in (page, card))


def test_the_command_of_another_package_is_listed_and_works(
    site: Path, rows: Path, tmp_path: Path
) -> None:
    assert "Count the rows of a file." in typed(site, tmp_path, "--help").stdout
    assert typed(site, tmp_path, "count", str(rows)).stdout == "80 rows\n"
