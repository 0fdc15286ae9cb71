"""Enrichment as a user has it: one key of a recipe, a whole small run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from holdfast.augment.texts.wordnet import PLACES
from holdfast.core.errors import Interrupted, RecipeError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override, read_recipe

SUBJECTS = ("the movie", "this film", "her story", "that old house", "our biggest computer")
DEEDS = ("was quickly bought", "is studied again", "plays for children", "costs 3 coins")
PLACE = ("near the river", "in Berlin", "on every day", "without a reason")


@pytest.fixture(scope="module")
def english_csv(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    """120 sentences, each with the mark of its class and some words that the model knows."""
    rng, rows = np.random.default_rng(0), []
    for text, label in marked_rows(120):
        said = " ".join(str(rng.choice(part)) for part in (SUBJECTS, DEEDS, PLACE))
        rows.append((f"{said} {text}", label))
    path: Path = write_csv(tmp_path_factory.mktemp("english") / "english.csv", rows)
    return path


def go(data: Path, quick: list[str], folder: Path, *settings: str, **more: Any) -> dict[str, Any]:
    # The last state, so that what was learned is seen whether or not it is better.
    quick = [*quick[:-1], "methods.contrast=false", "train.keep=last"]
    return train(override(Recipe(), [f"data.path={data}", *quick, *settings]), folder, **more)


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def needs(name: str) -> None:
    if name in ("synonyms", "insert", "eda") and not any(
        (p / "index.noun").exists() for p in PLACES
    ):
        pytest.skip("needs the files of WordNet: apt-get install wordnet-base")
    if name == "back_translation" and shutil.which("apertium") is None:
        pytest.skip("needs Apertium: apt-get install apertium apertium-eo-en")


@pytest.fixture(scope="module")
def plain(english_csv: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    go(english_csv, quick, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["aeda", "swap", "delete", "cutout", "synonyms", "insert", "eda", "back_translation"]
)
def test_a_whole_run_learns_from_other_forms_and_judges_by_the_rows_as_they_are(
    english_csv: Path, quick: list[str], tmp_path: Path, plain: Path, name: str
) -> None:
    needs(name)
    result = go(english_csv, quick, tmp_path / "run", f"enrich.{name}=true")
    told = [one for one in result["decisions"] if one["what"] == "augmentation"]
    assert len(told) == 1
    assert told[0]["chosen"].startswith(f"{name} (share 0.5")
    assert "→" in told[0]["because"]
    # The model knows neither a word of these sentences nor a synonym of it.
    assert (weights(tmp_path / "run") == weights(plain)) is (name == "synonyms")
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text("utf-8"))
    assert kept["enrich"][name]["share"] == 0.5
    # The first look is at the untouched model: the train probe's rows are those of the plain run.
    first = [
        json.loads((run / "events.jsonl").read_text("utf-8").splitlines()[k])
        for run in (tmp_path / "run", plain)
        for k in range(len((run / "events.jsonl").read_text("utf-8").splitlines()))
    ]
    looks = [one for one in first if one["event"] == "snapshot" and one["step"] == 0]
    assert looks[0]["train_loss"] == looks[1]["train_loss"]
    ours, theirs = (pq.read_table(run / "splits.parquet") for run in (tmp_path / "run", plain))
    assert ours.equals(theirs)


class Kill:
    name = "kill"

    def step_done(self, run: Any) -> None:
        if run.step == 7:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_that_is_killed_within_an_epoch_ends_as_one_that_was_left_alone(
    english_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    both = ("enrich.aeda=true", "enrich.delete.share=0.9", "methods.balance=true")
    result = go(english_csv, quick, tmp_path / "whole", *both)
    assert len([one for one in result["decisions"] if one["what"] == "augmentation"]) == 2
    with pytest.raises(Interrupted):
        go(english_csv, quick, tmp_path / "killed", *both, listeners=[Kill()], checkpoint_every_s=0)
    train(Recipe(), tmp_path / "killed", resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    train(read_recipe(tmp_path / "whole" / "recipe.yaml"), tmp_path / "again")
    assert weights(tmp_path / "again") == weights(tmp_path / "whole")


OWN = """
def louder(row, seed):
    return {**row, "text": row["text"] + " !" * (1 + seed % 3)}


def forgets(row, seed):
    return {"text": row["text"]}


calls = []


def counts(row, seed):
    calls.append(1)
    return {**row, "text": row["text"] + " !" * len(calls)}


def relabels(row, seed):
    return {**row, "label": "other"}


def writes(row, seed):
    row["text"] = "!"
    return dict(row)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_function_of_the_users_own_is_used_and_told(
    english_csv: Path, quick: list[str], tmp_path: Path, own: Path, plain: Path
) -> None:
    result = go(english_csv, quick, tmp_path / "run", f"enrich.own={own}:louder")
    told = [one for one in result["decisions"] if one["what"] == "code that runs"]
    assert [one["chosen"] for one in told] == [f"{own}:louder"]
    (line,) = [one for one in result["decisions"] if one["what"] == "augmentation"]
    assert " !" in line["because"]
    assert weights(tmp_path / "run") != weights(plain)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("forgets", "must return a row"),
        ("counts", "another form for the same row and seed"),
        ("relabels", "must keep the label"),
        ("writes", "changes the given row"),
        ("absent", "does not define"),
    ],
)
def test_a_function_that_breaks_a_promise_is_refused_before_the_first_step(
    english_csv: Path, quick: list[str], tmp_path: Path, own: Path, name: str, rule: str
) -> None:
    with pytest.raises(RecipeError, match=rule):
        go(english_csv, quick, tmp_path / "run", f"enrich.own={own}:{name}")
    assert not (tmp_path / "run" / "result.json").exists()


def test_what_is_asked_for_wrongly_is_refused_before_a_row_is_read(
    english_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    for setting, what in (
        ("enrich.aedo=true", "augment"),
        ("enrich.aeda.strenght=1", "augment.aeda.strenght"),
        ("enrich.aeda.share=2", "augment.aeda.share"),
        ("enrich.aeda=word", "augment.aeda"),
    ):
        with pytest.raises(RecipeError) as caught:
            go(english_csv, quick, tmp_path / "run", setting)
        assert caught.value.what == what
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_enrichment_that_changes_nothing_is_a_finding(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    # Words with digits in them are numbers, which nothing moves.
    result = go(marked_csv, quick, tmp_path / "run", "enrich.swap=true")
    (found,) = [one for one in result["data"]["findings"] if one["check"] == "idle_enrichment"]
    assert "changes 0 of" in found["because"]
