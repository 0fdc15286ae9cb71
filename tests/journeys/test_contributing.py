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
    r"^<!-- line in: (?P<path>\S+), after: (?P<before>.+) -->\n```text\n(?P<code>.*\n)```$", re.M
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
    for example in LINE.finditer(page):
        path, before = site / "holdfast" / example["path"], f"\n{example['before']}\n"
        text = path.read_text("utf-8")
        assert text.count(before) == 1
        path.write_text(text.replace(before, before + example["code"]), "utf-8")
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


@pytest.mark.slow
def test_the_check_is_made_of_its_file_alone(site: Path, rows: Path, tmp_path: Path) -> None:
    audit: dict[str, Any] = json.loads(typed(site, tmp_path, "audit", str(rows), "--json").stdout)
    (finding,) = [one for one in audit["findings"] if one["check"] == "shouting"]
    assert sorted(finding["rows"]) == [3, 8]


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert "Count the rows of a file" in typed(site, tmp_path, "--help").stdout
    assert typed(site, tmp_path, "count", str(rows)).stdout == "80 rows\n"


@pytest.mark.slow
def test_the_task_trains_predicts_and_is_scored_by_its_own_metric(
    site: Path, tmp_path: Path
) -> None:
    words = ("awful", "poor", "fair", "good", "great")
    lines = [
        f"number {n} was {word} to me,{at + 1}" for n in range(12) for at, word in enumerate(words)
    ]
    (tmp_path / "stars.csv").write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    task = ("--task", "ordered-classification")
    typed(site, tmp_path, "train", "stars.csv", *task, "--set", "train.max_steps=2", "--out", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert result["task"] == "ordered-classification"
    assert result["classes"] == ["1", "2", "3", "4", "5"]
    assert "Class distance" in (tmp_path / "run" / "report.html").read_text("utf-8")
    told = typed(site, tmp_path, "predict", "run", "stars.csv").stdout.splitlines()
    rows = [json.loads(line) for line in told]
    distance = sum(abs(int(row["prediction"]) - int(row["label"])) for row in rows) / len(lines)
    scored = json.loads(typed(site, tmp_path, "evaluate", "run", "stars.csv", "--json").stdout)
    assert scored["metrics"]["class_distance"]["value"] == pytest.approx(distance)
    # A setting that the task refuses is refused in its words.
    several = (*task, "--set", "data.label_kind=several", "--set", "methods.contrast=false")
    with pytest.raises(subprocess.CalledProcessError) as asked:
        typed(site, tmp_path, "train", "stars.csv", *several, "--dry-run")
    assert "must be class where classes are ordered" in asked.value.stderr
    # Where the task has no line in the table, it is refused by the names that there are.
    with pytest.raises(subprocess.CalledProcessError) as refused:
        typed(ROOT / "src", tmp_path, "train", "stars.csv", *task, "--out", "other")
    assert refused.value.returncode == 2
    assert "token-classification" in refused.value.stderr


@pytest.mark.slow
def test_the_tasks_loss_is_the_sum_of_its_questions(site: Path, tmp_path: Path) -> None:
    code = """
import math, torch
from types import SimpleNamespace
from holdfast.tasks.ordered.task import OrderedClassification
logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
labels = torch.tensor([0, 1, 2, 3, 4, 2, 0])
found = OrderedClassification(0, ()).losses(SimpleNamespace(logits=logits), {"labels": labels})
for row, label, loss in zip(logits.softmax(-1).tolist(), labels.tolist(), found.tolist()):
    asked = [sum(row[k + 1:]) if label > k else sum(row[:k + 1]) for k in range(4)]
    assert math.isclose(loss, -sum(map(math.log, asked)), rel_tol=1e-5)
"""
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(site)}, check=True
    )
