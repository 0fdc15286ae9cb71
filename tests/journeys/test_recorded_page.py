"""``holdfast report RUN --page``: from a finished run to the file that a colleague gets."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

EVERY_TASK = ["causal", "classes", "number", "pictures", "seq2seq", "several"]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_every_test_row_stands_on_it_with_the_answer_that_was_scored(
    holdfast: Any, run: Path, marked_csv: Path
) -> None:
    done = holdfast("report", run, "--page", "answers.html")
    assert done.code == 0, done.err
    assert done.out == "answers.html\n"
    assert "privacy" in done.err
    page = Path("answers.html").read_text("utf-8")
    said = pq.read_table(run / "predictions.parquet").to_pylist()
    texts = marked_csv.read_text("utf-8").splitlines()[1:]
    blocks = {
        int(re.findall(r"row (\d+)<", block)[0]): re.sub("<[^>]+>", "", block.partition(">")[2])
        for block in page.split('<li class="example')[1:]
    }
    assert set(blocks) == {line["row"] for line in said}
    for line in said:
        block = " ".join(blocks[line["row"]].split())
        assert texts[line["row"]].rpartition(",")[0] in block
        chance = f"{100 * max(line['probabilities']):.1f}"
        assert f"{line['prediction']} · confidence {chance}" in block
        assert (" label " in block) == (line["prediction"] != line["label"])
    right = sum(line["prediction"] == line["label"] for line in said)
    assert f"Accuracy on them: {100 * right / len(said):.0f}" in page
    score = json.loads((run / "result.json").read_text("utf-8"))["test"]["metrics"]["accuracy"]
    value, low, high = (f"{100 * score[end]:.1f}" for end in ("value", "low", "high"))
    assert f"Accuracy {value} % (95 % CI {low}–{high}, " in page
    # Nothing of the machine, and nothing of the rows that the model learned from.
    assert str(run.parent) not in page
    assert str(marked_csv.parent) not in page
    assert len(page.encode()) < 2_000_000


def test_nothing_is_written_over_and_nothing_else_is_written(holdfast: Any, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    Path("there.html").write_text("mine")
    refused = holdfast("report", run, "--page", "there.html")
    assert refused.code == 2
    assert "--force" in refused.err
    assert Path("there.html").read_text() == "mine"
    inside = holdfast("report", run, "--page", run / "report.html", "--force")
    assert inside.code == 2
    assert "input" in inside.err
    assert holdfast("report", run, "--page", "there.html", "--force").code == 0
    assert Path("there.html").read_text("utf-8").startswith("<!doctype html>")
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    alone = holdfast("report", run, "--force")
    assert alone.code == 2
    assert "--page" in alone.err
    missing = holdfast("report", run.parent, "--page", "x.html")
    assert missing.code == 2
    assert not Path("x.html").exists()


def test_where_the_source_is_gone_only_texts_that_the_run_kept_are_shown(
    holdfast: Any, run: Path
) -> None:
    result = json.loads((run / "result.json").read_text("utf-8"))
    hardest = {one["row"] for lines in result["hardest"].values() for one in lines}
    recipe = (run / "recipe.yaml").read_text("utf-8")
    path = next(line for line in recipe.splitlines() if line.strip().startswith("path:"))
    gone = Path(path.partition(":")[2].strip())
    kept = gone.read_bytes()
    gone.unlink()
    try:
        done = holdfast("report", run, "--page", "answers.html")
    finally:
        gone.write_bytes(kept)
    assert done.code == 0, done.err
    assert "the source has changed" in done.err
    page = Path("answers.html").read_text("utf-8")
    assert set(map(int, re.findall(r">row (\d+)<", page))) == hardest
    if len(hardest) < result["test"]["n"]:
        assert "the hardest" in page
        assert "Right:" not in page


@pytest.mark.parametrize("name", EVERY_TASK)
def test_every_task_has_its_page(holdfast: Any, old_runs: Path, name: str) -> None:
    done = holdfast("report", old_runs / "runs" / name, "--page", "answers.html")
    assert done.code == 0, done.err
    page = Path("answers.html").read_text("utf-8")
    assert page.count('<li class="example') >= 4
    result = json.loads((old_runs / "runs" / name / "result.json").read_text("utf-8"))
    if name in ("causal", "seq2seq"):
        wrote = [one["generated"] for one in result["generations"]["test"]]
        assert page.count('<li class="example') == len(wrote)
        assert page.count("reference</span>") == len(wrote)
        assert "base model</span>" in page
        assert "Accuracy" not in page
    elif name == "number":
        assert ">error " in page
        assert "Accuracy" not in page
    else:
        # Without its source a run shows the rows that it kept: the hardest, no fair share.
        source = Path(result["settings"]["data"]["path"])
        assert ("Accuracy on them: " in page) is source.exists()
    assert ("data:image/jpeg" in page) == (name == "pictures")


def test_a_tagger_shows_its_tags_under_the_words(
    holdfast: Any, tiny_model: Path, tmp_path: Path
) -> None:
    rows = [
        {"tokens": [f"w{n % 40}", mark, "w7"], "tags": ["O", tag, "O"]}
        for n in range(60)
        for mark, tag in [("good", "B-GOOD") if n % 2 else ("bad", "B-BAD")]
    ]
    source = tmp_path / "tags.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    quick = ["train.epochs=2", "train.threads=1", "train.precision=float32", "model.max_length=24"]
    train(
        override(Recipe(), [f"data.path={source}", f"model.name={tiny_model}", *quick]),
        tmp_path / "run",
    )
    done = holdfast("report", tmp_path / "run", "--page", "tags.html")
    assert done.code == 0, done.err
    page = Path("tags.html").read_text("utf-8")
    assert page.count('class="tag is-') >= 5
    assert "<option>GOOD</option>" in page


def test_answers_below_the_threshold_are_left_to_a_person(holdfast: Any, run: Path) -> None:
    set_at = holdfast("threshold", run, "--coverage", "0.5")
    assert set_at.code == 0, set_at.err
    assert holdfast("report", run, "--page", "answers.html").code == 0
    page = Path("answers.html").read_text("utf-8")
    chosen = json.loads((run / "threshold.json").read_text("utf-8"))["threshold"]
    said = pq.read_table(run / "predictions.parquet").to_pylist()
    below = sum(max(line["probabilities"]) < chosen for line in said)
    assert page.count("ask a person") == below > 0
