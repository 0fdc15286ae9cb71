"""``holdfast meta`` as a user has it: many small tasks in, a start for new ones out."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

import holdfast as package
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.core.run_shapes import SEAL
from holdfast.plugins.episodes import choice as meta_choice
from holdfast.plugins.episodes.meta import meta
from holdfast.plugins.episodes.methods import EpisodeScores
from holdfast.plugins.episodes.rows import MetaRows, load_tasks
from holdfast.recipe import Recipe, override
from holdfast.stats.paired_tests import Difference

WORDS = [f"w{i}" for i in range(40)]
SMALL = [
    "meta.judge_episodes=12",
    "meta.test_episodes=20",
    "meta.episodes=4",
    "meta.looks=2",
    "train.threads=1",
    "train.matmul=default",
    "train.learning_rate=1e-3",
]
SETS = [part for one in SMALL for part in ("--set", one)]


def text(rng: np.random.Generator, mark: str) -> str:
    words = [WORDS[j] for j in rng.integers(20, 40, rng.integers(5, 8))] + [mark]
    rng.shuffle(words)
    return " ".join(words)


@pytest.fixture(scope="module")
def classes_csv(tmp_path_factory: pytest.TempPathFactory, write_csv: Any) -> Path:
    """15 classes of 10 rows, each with a word of its own."""
    rng = np.random.default_rng(0)
    rows = [(text(rng, WORDS[c]), f"c{c}") for c in range(15) for _ in range(10)]
    path: Path = write_csv(tmp_path_factory.mktemp("rows") / "intents.csv", rows)
    return path


@pytest.fixture(scope="module")
def tasks_csv(tmp_path_factory: pytest.TempPathFactory, write_csv: Any) -> Path:
    """Seven products with three classes of eight rows."""
    rng = np.random.default_rng(1)
    rows = [
        (text(rng, WORDS[(k + 5 * c) % 20]), "abc"[c], f"p{k}")
        for k in range(7)
        for c in range(3)
        for _ in range(8)
    ]
    place = tmp_path_factory.mktemp("tasks") / "reviews.csv"
    path: Path = write_csv(place, rows, ("text", "label", "product"))
    return path


@pytest.fixture(scope="module")
def small_resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ResNetConfig, ResNetForImageClassification
    from transformers.models.vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("resnet") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ResNetConfig(
            num_channels=1,
            embedding_size=8,
            hidden_sizes=[8, 8],
            depths=[1, 1],
            layer_type="basic",
            num_labels=2,
        )
        ResNetForImageClassification(config).save_pretrained(folder)
    size = {"height": 12, "width": 12}
    ViTImageProcessorPil(size=size, image_mean=[0.5], image_std=[0.5]).save_pretrained(folder)
    return folder


def rows_of(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(run / "splits.parquet").to_pylist()
    return found


@pytest.fixture(scope="module")
def run(classes_csv: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over classes, with every method tried; to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "auto"
    meta(
        override(Recipe(), [f"data.path={classes_csv}", f"model.name={tiny_model}", *SMALL]), folder
    )
    return folder


def test_classes_are_divided_so_that_none_is_on_two_sides(run: Path) -> None:
    result = json.loads((run / "result.json").read_text("utf-8"))
    told = result["meta"]
    assert told["by"] == "class"
    assert (told["ways"], told["shots"], told["queries"]) == (5, 5, 5)
    sides: dict[str, set[str]] = {}
    for line in rows_of(run):
        sides.setdefault(line["split"], set()).add(line["group"])
    assert {name: len(found) for name, found in sides.items()} == {
        "train": 5,
        "valid": 5,
        "test": 5,
    }
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["valid"]
    assert set(result["classes"]) == sides["train"]
    # As many classes as an episode has: how others differ cannot be told, and it says so.
    assert told["accuracy"]["low"] is None
    assert "is unknown" in told["accuracy"]["why"]
    assert result["test"]["n"] == told["episodes"] == 20
    assert result["test"]["metrics"]["accuracy"]["value"] == told["accuracy"]["value"]
    assert {one["method"] for one in told["tried"]} == {"frozen", "tuned", "prototypes"}
    assert set(told["baselines"]) == {"frozen", "tuned"}
    assert {one["task"] for one in told["per_task"]} == sides["test"]


def test_the_score_is_that_of_the_predictions_on_rows_of_test_classes_alone(run: Path) -> None:
    result = json.loads((run / "result.json").read_text("utf-8"))
    lines = parquet.read_table(run / "predictions.parquet").to_pylist()
    side = {line["row"]: (line["split"], line["group"]) for line in rows_of(run)}
    assert len(lines) == 20 * 5 * 5
    assert all(side[line["row"]] == ("test", line["label"]) for line in lines)
    right = [line["prediction"] == line["label"] for line in lines]
    assert np.mean(right) == pytest.approx(result["meta"]["accuracy"]["value"])
    for line in lines[:50]:
        assert sum(line["shares"]) == pytest.approx(1)
        best = line["classes"][int(np.argmax(line["shares"]))]
        assert best == line["prediction"]
        own = line["shares"][line["classes"].index(line["label"])]
        assert -np.log(own) == pytest.approx(line["loss"], abs=1e-6)


@pytest.mark.slow
def test_the_start_loads_plainly_and_is_one_that_train_goes_on_from(
    run: Path, holdfast: Any, marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    plain = AutoModelForSequenceClassification.from_pretrained(run / "model")
    AutoTokenizer.from_pretrained(run / "model")
    assert len(plain.config.id2label) == 5
    sets = [part for one in quick[1:] for part in ("--set", one)]
    done = holdfast("train", marked_csv, "--model", run / "model", *sets, "--out", "next", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["model"] == str(run / "model")
    # The head of the saved model names the training class of the nearest mean.
    done = holdfast("predict", run, marked_csv, "--out", "answers.jsonl")
    assert done.code == 0, done.err
    assert (tmp_path / "answers.jsonl").exists()


def test_the_page_says_what_it_is_worth_and_what_was_tried(run: Path, holdfast: Any) -> None:
    page = (run / "report.html").read_text("utf-8")
    assert "Test score on new tasks" in page
    assert "prototypical network" in page
    assert "with 5 labelled rows for each of 5 classes" in page
    assert "test episodes that took no part in any choice" in page
    # Test episodes have other classes than the saved head, and other answers than its own.
    assert not [key for key in ("confusion", "hardest") if f'<section id="{key}"' in page]
    before = page
    done = holdfast("report", run)
    assert done.code == 0, done.err
    assert (run / "report.html").read_text("utf-8") == before
    for command in (("errors", run), ("threshold", run, "--coverage", "0.8"), ("fairness", run)):
        refused = holdfast(*command)
        assert refused.code == 2, (command, refused.err)
        assert "is a base model for many tasks" in refused.err


@pytest.mark.slow
def test_the_command_tells_tasks_apart_by_a_column(
    holdfast: Any, tasks_csv: Path, tiny_model: Path
) -> None:
    options = ("--model", tiny_model, *SETS, "--set", "meta.shots=3", "--out", "out")
    more = ("--set", "meta.method=prototypes")
    done = holdfast("meta", tasks_csv, "--task-column", "product", *options, *more)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    assert "on tasks it was not trained on" in " ".join(done.out.split())
    assert "Selected" in done.out
    result = json.loads(Path("out/result.json").read_text("utf-8"))
    told = result["meta"]
    assert told["by"] == "task"
    assert told["method"] == told["asked"] == "prototypes"
    assert told["ways"] == 3
    assert {name: count for name, (count, _) in told["tasks"].items()} == {
        "train": 3,
        "valid": 2,
        "test": 2,
    }
    sides: dict[str, set[str]] = {}
    for line in rows_of(Path("out")):
        sides.setdefault(line["split"], set()).add(line["group"].partition("/")[0])
    assert sides["train"] | sides["valid"] | sides["test"] == {f"p{k}" for k in range(7)}
    assert sum(map(len, sides.values())) == 7
    assert told["interval"]["over"] == "task"
    assert len(told["per_task"]) == 2
    again = holdfast("train", "out/recipe.yaml", "--out", "other")
    assert again.code == 2
    assert "holdfast meta" in again.err
    assert not Path("other").exists()
    assert holdfast("meta", tasks_csv, "--out", "out", "--resume", "--json").code == 0
    repeated = holdfast("meta", "out/recipe.yaml", "--out", "again", "--json")
    assert repeated.code == 0, repeated.err
    twin = json.loads(repeated.out)["meta"]
    assert twin["accuracy"] == told["accuracy"]
    assert twin["against"] == told["against"]
    weights = "model/model.safetensors"
    assert Path("again", weights).read_bytes() == Path("out", weights).read_bytes()


@pytest.mark.slow
def test_folders_of_pictures_are_tasks_and_classes(
    holdfast: Any, small_resnet: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for alphabet in range(4):
        for character in range(4):
            place = tmp_path / "alphabets" / f"a{alphabet}" / f"c{character}"
            place.mkdir(parents=True)
            for drawing in range(6):
                pixels = rng.integers(0, 90, (12, 12)).astype(np.uint8)
                pixels[3 * character : 3 * character + 3, 3 * alphabet : 3 * alphabet + 6] += 150
                Image.fromarray(pixels).save(place / f"{drawing}.png")
    options = ("--model", small_resnet, *SETS, "--set", "meta.shots=1", "--out", "out")
    done = holdfast("meta", tmp_path / "alphabets", *options, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["task"] == "image-classification"
    assert result["meta"]["by"] == "task"
    assert result["meta"]["tasks"] == {"train": [2, 8], "valid": [1, 4], "test": [1, 4]}
    assert all("/" in name for name in result["classes"])
    from transformers import AutoModelForImageClassification

    AutoModelForImageClassification.from_pretrained("out/model")


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_ends_as_one_that_was_not(
    run: Path,
    classes_csv: Path,
    tiny_model: Path,
    tmp_path: Path,
    killed: type[BaseException],
    holdfast: Any,
) -> None:
    recipe = override(Recipe(), [f"data.path={classes_csv}", f"model.name={tiny_model}", *SMALL])
    heard: list[str] = []

    def dies(told: Any) -> None:
        heard.append(getattr(told, "what", ""))
        if isinstance(told, Decision) and told.what.startswith("prototypes, 2 of 4"):
            raise killed

    with pytest.raises(killed), decisions_to(dies):
        meta(recipe, tmp_path / "out", checkpoint_every_s=0)
    assert not (tmp_path / "out" / "result.json").exists()
    other = holdfast("train", classes_csv, "--out", tmp_path / "out", "--resume")
    assert other.code == 2
    assert "holdfast meta" in other.err
    written = (tmp_path / "out" / "recipe.yaml").read_text("utf-8")
    (tmp_path / "out" / "recipe.yaml").write_text(written.replace("shots: 5", "shots: 4"), "utf-8")
    changed = holdfast("meta", classes_csv, "--out", tmp_path / "out", "--resume")
    assert changed.code == 2
    assert "began with other rows or settings" in changed.err
    (tmp_path / "out" / "recipe.yaml").write_text(written, "utf-8")
    heard.clear()
    with decisions_to(lambda told: heard.append(getattr(told, "what", ""))):
        again = meta(recipe, tmp_path / "out", resume=True, checkpoint_every_s=0)
    assert "tuned, 2 of 4" not in heard
    whole = json.loads((run / "result.json").read_text("utf-8"))
    skip = {"seconds"}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in skip}
        return [plain(one) for one in value] if isinstance(value, list) else value

    for part in ("meta", "test", "valid", "baseline", "verdict", "best_step", "data"):
        ours = (
            {k: v for k, v in again[part].items() if k != "opened_at"}
            if part == "test"
            else again[part]
        )
        theirs = (
            {k: v for k, v in whole[part].items() if k != "opened_at"}
            if part == "test"
            else whole[part]
        )
        assert plain(ours) == plain(theirs), part
    for name in ("model.safetensors", "config.json"):
        ours = (tmp_path / "out" / "model" / name).read_bytes()
        assert ours == (run / "model" / name).read_bytes()
    assert not (tmp_path / "out" / "checkpoints").exists()
    done = holdfast("meta", classes_csv, "--out", tmp_path / "out", "--resume")
    assert done.code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task-column", "nothing"], "nothing"),
        (["--set", "meta.ways=9"], "has 15 classes large enough for episodes"),
        (["--set", "meta.ways=9"], "with 10 rows a class"),
        (["--set", "meta.shots=40"], "rows a class"),
        (["--task", "seq2seq"], "does not support seq2seq"),
        (["--task", "causal-lm"], "does not support causal-lm"),
        (["--task", "token-classification"], "does not support token-classification"),
        (["--set", "methods.sam=true"], "does not apply to holdfast meta"),
        (["--set", "model.adapter.kind=lora"], "is a full model"),
        (["--set", "meta.method=magic"], "is not one of the known values"),
        (["--set", "meta.method=maml"], "Use auto, embedding or prototypes"),
        (["--set", "meta.inner_steps=3"], "meta.inner_steps"),
        (["--test", "SELF"], "must not be seen in training"),
        (["--resume", "--out", "absent"], "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    options: list[str], words: str, holdfast: Any, classes_csv: Path, tiny_model: Path
) -> None:
    given = [str(classes_csv) if one == "SELF" else one for one in options]
    out = () if "--out" in given else ("--out", "out")
    done = holdfast("meta", classes_csv, "--model", tiny_model, *SETS, *given, *out)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_class_with_too_few_rows_takes_no_part_and_is_named(
    holdfast: Any, tiny_model: Path, write_csv: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    rows = [(text(rng, WORDS[c]), f"c{c}") for c in range(15) for _ in range(4 if c == 3 else 8)]
    # A row that a test task could hold twice, and one that two sides would share.
    rows += [rows[0], (rows[20][0], "c9")]
    source = write_csv(tmp_path / "rows.csv", rows)
    more = ("--set", "meta.method=embedding", "--set", "meta.ways=3", "--set", "meta.queries=3")
    options = ("--model", tiny_model, *SETS, *more, "--set", "meta.shots=3", "--out", "out")
    done = holdfast("meta", source, *options, "--json", "--quiet")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["meta"]["method"] == "embedding"
    assert result["meta"]["kept"] in ("frozen", "tuned")
    found = {one["check"]: one for one in result["data"]["findings"]}
    assert "c3" in found["too_few_rows_of_a_task"]["because"]
    assert found["too_few_rows_of_a_task"]["severity"] == "warn"
    lines = rows_of(Path("out"))
    lost = {line["row"]: line["note"] for line in lines if line["split"] == "dropped"}
    assert set(range(24, 28)) <= set(lost)
    copies = [row for row, note in lost.items() if note == "a copy of another row"]
    assert len(set(copies) & {0, len(rows) - 2}) == 1
    assert len(set(copies) & {20, len(rows) - 1}) <= 1
    assert "NaN" not in done.out


def test_of_copies_across_sides_the_row_of_the_side_that_judges_stays(
    classes_csv: Path, write_csv: Any, tmp_path: Path
) -> None:
    """Classes that are divided are of one task: a copy on a side that learns takes no row away."""

    def divided(source: Path) -> MetaRows:
        settings = [f"data.path={source}", "meta.ways=3", "meta.shots=2", "meta.queries=3"]
        return load_tasks(override(Recipe(), [*settings, "task=text-classification"]))

    with classes_csv.open(newline="", encoding="utf-8") as file:
        rows = [(line["text"], line["label"]) for line in csv.DictReader(file)]
    pools = divided(classes_csv).pools
    learned, scored = (pool.tasks[0].classes[0] for pool in (pools[0], pools[2]))
    at = [i for i, (_, label) in enumerate(rows) if label == scored]
    copied = [(rows[i][0], learned) for i in at]
    found = divided(write_csv(tmp_path / "copied.csv", [*copied, *rows]))
    split = found.records["split"].to_pylist()
    assert split[: len(at)] == ["dropped"] * len(at)
    kept = {split[len(at) + i] for i in at}
    assert kept == {"test"}
    (told,) = [one for one in found.findings if one.check.startswith("copies_")]
    assert (told.check, told.count) == ("copies_across_tasks", len(at))


def test_what_is_chosen_is_chosen_by_the_tasks_that_decide(
    classes_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never by those that are scored; and a method has one chance in 20."""
    settings = ["task=text-classification", "meta.method=auto", "meta.episodes=4"]
    recipe = override(Recipe(), [f"data.path={classes_csv}", *settings, "train.learning_rate=1e-3"])
    found = load_tasks(recipe)
    unready: Any = None
    bench = meta_choice.MetaBench(unready, found, found.recipe, None, "", 0.0)
    course = bench.plan()
    assert course.pool is found.pools[0]
    for episodes, side in (
        (bench.validation_episodes(), 1),
        (course.valid_episodes, 1),
        (course.train_episodes, 0),
    ):
        assert {s for e in episodes for s in found.split[e.query].ravel()} == {side}
    scores = EpisodeScores(np.full(10, 0.5), np.ones(10), ())
    arm = meta_choice.ScoredStart("frozen", unready, None, scores)
    levels = []

    def heard(bench: Any, arm: Any, baseline: Any, level: float) -> Difference:
        levels.append(level)
        return Difference(0.0, -0.1, 0.1, 0.5, 10)

    monkeypatch.setattr(meta_choice, "baselines", lambda *_: (arm, arm))
    monkeypatch.setattr(
        meta_choice, "train_candidate", lambda _, name, *__: replace(arm, name=name)
    )
    monkeypatch.setattr(meta_choice, "_paired_difference", heard)
    assert meta_choice.choose(bench).selected is arm
    one_sided = [(1 - level) / 2 for level in levels]
    assert one_sided == pytest.approx([0.05, 0.05])


def test_an_old_run_of_a_method_that_was_taken_out_still_predicts_and_reports(
    run: Path, holdfast: Any, marked_csv: Path, tmp_path: Path
) -> None:
    """Its recipe and its results name the method, and the recipe two numbers that went with it."""
    old = tmp_path / "old"
    shutil.copytree(run, old)
    recipe, result = old / "recipe.yaml", json.loads((old / "result.json").read_text("utf-8"))
    written = recipe.read_text("utf-8").replace("method: auto", "method: maml")
    recipe.write_text(written.replace("  ways:", "  inner_steps: 5\n  inner_rate: null\n  ways:"))
    assert "method: maml" in recipe.read_text("utf-8")
    assert "inner_steps: 5" in recipe.read_text("utf-8")
    result["meta"] |= {"method": "maml", "kept": "maml"}
    result.pop(SEAL)
    (old / "result.json").write_text(json.dumps(result), "utf-8")
    done = holdfast("predict", old, marked_csv, "--out", "answers.jsonl")
    assert done.code == 0, done.err
    done = holdfast("report", old)
    assert done.code == 0, done.err
    assert "Chosen: first-order MAML" in (old / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_given_test_rows_are_the_test_tasks(
    holdfast: Any, classes_csv: Path, tiny_model: Path, write_csv: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    new = [(text(rng, WORDS[30 + c]), f"new{c}") for c in range(6) for _ in range(10)]
    test = write_csv(tmp_path / "test.csv", new)
    more = ("--set", "meta.method=prototypes", "--seed", "1", "--out", "out")
    done = holdfast("meta", classes_csv, "--test", test, "--model", tiny_model, *SETS, *more)
    assert done.code == 0, done.err
    result = json.loads(Path("out/result.json").read_text("utf-8"))
    assert {one["task"] for one in result["meta"]["per_task"]} == {f"new{c}" for c in range(6)}
    assert result["data"]["test"] == 60
    assert result["meta"]["accuracy"]["low"] is not None
    files = {line["file"] for line in rows_of(Path("out")) if line["split"] == "test"}
    assert files == {str(test)}


def test_rows_without_a_task_are_no_task_that_stands_on_two_sides(
    tasks_csv: Path, write_csv: Any, tmp_path: Path
) -> None:
    """Each stands alone under its place in its file, and the same places are in every file."""
    rng = np.random.default_rng(4)
    with tasks_csv.open(newline="", encoding="utf-8") as file:
        own = [tuple(line.values()) for line in csv.DictReader(file)]
    new = [(text(rng, WORDS[c]), "abc"[c], "new") for c in range(3) for _ in range(8)]
    lost = [(text(rng, WORDS[0]), "a", "")]
    names = ("text", "label", "product")
    source = write_csv(tmp_path / "own.csv", [*lost, *own], names)
    test = write_csv(tmp_path / "test.csv", [*lost, *new], names)
    asked = ("task=text-classification", "meta.task_column=product", "meta.queries=3")
    settings = [f"data.path={source}", f"data.test={test}", *asked]
    found = load_tasks(override(Recipe(), settings))
    assert [task.name for task in found.pools[2].tasks] == ["new"]
    with pytest.raises(DataError, match="'p0'"):
        load_tasks(override(Recipe(), [*settings, f"data.test={tasks_csv}"]))


@pytest.mark.slow
def test_python_does_what_the_command_does(
    classes_csv: Path, tiny_model: Path, tmp_path: Path, run: Path
) -> None:
    made = package.meta(classes_csv, model=tiny_model, settings=SMALL, out=tmp_path / "out")
    whole = json.loads((run / "result.json").read_text("utf-8"))
    assert made.result["meta"]["accuracy"] == whole["meta"]["accuracy"]
    assert made.folder == tmp_path / "out"
