"""Several data sets in one run: a list of paths, one division a source, a score a source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from holdfast.core.errors import Interrupted, RecipeError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.tasks.classes.row_weights import source_weights


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    """shop.csv: 120 rows; post.csv: 40 with other names for columns and labels, of which eight are
    rows of shop.csv."""
    folder: Path = tmp_path_factory.mktemp("mix")
    rows = marked_rows(160)
    write_csv(folder / "shop.csv", rows[:120])
    other = {"no": "bad", "yes": "good"}
    post = [(other[label], text) for text, label in [*rows[:8], *rows[120:152]]]
    write_csv(folder / "post.csv", post, ("opinion", "message"))
    return folder


def settings(folder: Path, quick: list[str], *more: str) -> list[str]:
    parts = [
        {"path": str(folder / "shop.csv")},
        {"path": str(folder / "post.csv"), "labels": {"bad": "no", "good": "yes"}, "weight": 2},
    ]
    return [f"data.mix={json.dumps(parts)}", *quick, "methods.contrast=false", *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sources: Path, quick: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(override(Recipe(), settings(sources, quick)), folder)
    return folder


@pytest.mark.slow
def test_each_source_is_divided_and_scored_by_itself_and_copies_stay_together(run: Path) -> None:
    result = json.loads((run / "result.json").read_text("utf-8"))
    assert result["classes"] == ["no", "yes"]
    table = pq.read_table(run / "data.parquet").to_pylist()
    sides = {r["row"]: r["split"] for r in pq.read_table(run / "splits.parquet").to_pylist()}
    for source, count in (("shop", 120), ("post", 40)):
        here = [sides[i] for i, row in enumerate(table) if row["source"] == source]
        assert len(here) == count
        assert here.count("test") == pytest.approx(0.15 * count, abs=4)
        assert here.count("valid") == pytest.approx(0.15 * count, abs=4)
        assert result["sources"][source]["n"] == here.count("test")
        assert 0 <= result["sources"][source]["metrics"]["accuracy"]["value"] <= 1
    assert [sides[i] for i in range(8)] == [sides[120 + i] for i in range(8)]
    (copies,) = [f for f in result["data"]["findings"] if f["check"] == "copies_across_sources"]
    assert copies["count"] == 16
    page = (run / "report.html").read_text("utf-8")
    assert f"Source shop, {result['sources']['shop']['n']} rows" in page.replace("\u00a0", " ")
    told = {one["what"]: one for one in result["decisions"]}
    assert "class and source" in told["split"]["because"]
    assert told["weights of sources"]["chosen"].startswith("post 1.6, shop 0.8")


@pytest.mark.slow
def test_the_runs_recipe_repeats_it_to_the_byte(run: Path, tmp_path: Path) -> None:
    train(read_recipe(run / "recipe.yaml"), tmp_path / "again")
    model = Path("model") / "model.safetensors"
    assert (tmp_path / "again" / model).read_bytes() == (run / model).read_bytes()


class Kill:
    name = "kill"

    def step_done(self, run: Any) -> None:
        if run.step == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_killed_run_is_resumed_without_its_sources(
    run: Path, sources: Path, quick: list[str], tmp_path: Path
) -> None:
    copies = tmp_path / "mix"
    shutil.copytree(sources, copies)
    recipe, folder = override(Recipe(), settings(copies, quick)), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(recipe, folder, listeners=(Kill(),), checkpoint_every_s=0.0)
    shutil.rmtree(copies)
    train(recipe, folder, resume=True)
    model = Path("model") / "model.safetensors"
    assert (folder / model).read_bytes() == (run / model).read_bytes()


def test_a_list_of_paths_is_a_mix_and_its_plan_writes_nothing(
    holdfast: Callable[..., Any], sources: Path, quick: list[str], tmp_path: Path, write_csv: Any
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data:\n  path: [{sources}/shop.csv, {sources}/post.csv]\n", "utf-8")
    more = [part for setting in quick for part in ("--set", setting)]
    done = holdfast("train", recipe, "--dry-run", "--json", *more)
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["rows"] == 160
    assert plan["classes"] == ["bad", "good", "no", "yes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]


def test_weights_follow_the_temperature(sources: Path) -> None:
    import datasets

    from holdfast.data.table import Columns, Table

    names = ["a"] * 80 + ["b"] * 20
    rows = datasets.Dataset.from_dict({"row": range(100), "source": names})
    table = Table(rows, (), Columns(("text",), "label"), "memory", 100)
    assert source_weights(table, None, None) == (None, ())
    for temperature, share in ((1.0, 0.8), (2.0, np.sqrt(80) / (np.sqrt(80) + np.sqrt(20)))):
        weights, _ = source_weights(table, None, temperature)
        assert weights is not None
        assert weights.mean() == pytest.approx(1)
        assert weights[:80].sum() / 100 == pytest.approx(share)
    weights, _ = source_weights(table, {"b": 4.0}, None)
    assert weights is not None
    assert weights[-1] / weights[0] == pytest.approx(4)
    with pytest.raises(RecipeError, match="does not exist"):
        source_weights(table, {"c": 1.0}, None)
    # In silence they would change nothing.
    for given in (({"a": 2.0}, None), (None, 2.0)):
        bare = replace(table, rows=table.rows.remove_columns("source"))
        with pytest.raises(RecipeError, match="the source of each row"):
            source_weights(bare, *given)


def test_what_says_two_things_is_refused(sources: Path, quick: list[str], tmp_path: Path) -> None:
    for more, rule in (
        ("data.text=text", "applies to one table"),
        ("task=token-classification", "does not apply"),
        ("task=seq2seq", "applies only to texts with one class each"),
    ):
        with pytest.raises(RecipeError, match=rule):
            train(override(Recipe(), settings(sources, quick, more)), tmp_path / "r")
    both = {"path": ["a.csv"], "mix": [{"path": "b.csv"}]}
    with pytest.raises(RecipeError, match="give only one of them"):
        Recipe().with_changes(data=both)
    assert not (tmp_path / "r").exists()


def test_chats_of_two_files_are_one_run(tmp_path: Path, tiny_llama: Path, holdfast: Any) -> None:
    told = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(40)]
    asked = [
        {
            "messages": [
                {"role": "user", "content": f"And {i}?"},
                {"role": "assistant", "content": f"Also {i}."},
            ]
        }
        for i in range(24)
    ]
    for name, rows in (("told", told), ("asked", asked)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = [str(tmp_path / f"{name}.jsonl") for name in ("told", "asked")]
    settings = [
        f"data.path=[{','.join(names)}]",
        f"model.name={tiny_llama}",
        "train.max_steps=4",
        "train.threads=1",
        "train.precision=float32",
        "generate.rows=2",
        "generate.max_new_tokens=6",
        "data.template=chatml",
    ]
    result = train(override(Recipe(), settings), tmp_path / "run")
    assert result["task"] == "causal-lm"
    table = pq.read_table(tmp_path / "run/data.parquet").to_pylist()
    splits = pq.read_table(tmp_path / "run/splits.parquet").to_pylist()
    for source, count in (("told", 40), ("asked", 24)):
        here = [one["split"] for one in splits if table[one["row"]]["source"] == source]
        assert len(here) == count
        # Each source is split by itself.
        assert here.count("test") == pytest.approx(0.15 * count, abs=1)
    again = read_recipe(tmp_path / "run/recipe.yaml")
    assert (again.data.mix, again.data.source, again.task) == (None, "source", "causal-lm")
    # A file in the form of one of the sources can be tested, and predicted.
    new = tmp_path / "new.jsonl"
    new.write_text("\n".join(map(json.dumps, [{**row, "output": "So."} for row in told[:6]])))
    tested = train(override(Recipe(), [*settings, f"data.test={new}"]), tmp_path / "tested")
    assert tested["test"]["n"] == 6
    lines = holdfast("predict", tmp_path / "run", new).out.splitlines()
    assert len(lines) == 6
    for more in ("data.messages=messages", "data.template={instruction}"):
        with pytest.raises(RecipeError, match="applies to one table"):
            train(override(Recipe(), [*settings, more]), tmp_path / "refused")
    weighted = [{"path": names[0], "weight": 2}, {"path": names[1]}]
    with pytest.raises(RecipeError, match="applies only to texts with one class each"):
        train(
            override(Recipe(), [f"data.mix={json.dumps(weighted)}", *settings[1:]]),
            tmp_path / "weighted",
        )
