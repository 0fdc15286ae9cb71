"""Side columns as a user has them: a key of the recipe, a plain folder beside the model."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import DataError, RecipeError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

HEADER = ("text", "label", "shop", "price", "day")


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    """Four classes: half of what they are stands in the text (yes, no), half in the shop; price and
    day are noise."""
    rng, rows = np.random.default_rng(0), []
    for index, (text, label) in enumerate(marked_rows(240)):
        shop = "ab"[(index // 2) % 2]
        seen = "" if index % 17 == 0 else shop
        rows.append(
            (
                text,
                f"{label}-{shop}",
                seen,
                f"{rng.normal(9, 2):.2f}",
                f"2024-03-{1 + index % 28:02}",
            )
        )
    path: Path = write_csv(tmp_path_factory.mktemp("shops") / "shops.csv", rows, HEADER)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shops: Path, quick: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    given = [f"data.path={shops}", "data.features=[shop, price, 'day:date', text.length]", *quick]
    train(override(Recipe(), given), folder)
    return folder


def test_a_column_that_tells_half_of_the_label_is_kept_and_noise_is_not(run: Path) -> None:
    result = json.loads((run / "result.json").read_text("utf-8"))
    block = result["wrapper"]
    assert block["kind"] == "features"
    kept = {column["name"] for column in block["columns"] if column["kept"]}
    assert "shop" in kept
    importance = {c["name"]: c["importance"]["value"] for c in block["columns"]}
    assert max(importance, key=lambda name: importance[name]) == "shop"
    assert importance["shop"] > 10 * max(v for n, v in importance.items() if n != "shop")
    assert block["gain_out_of_fold"]["low"] > 0.3
    whole = result["test"]["metrics"]["accuracy"]["value"]
    alone = result["plain_part"]["test"]["metrics"]["accuracy"]["value"]
    assert whole > alone + 0.2
    (said,) = [one for one in result["decisions"] if one["what"] == "feature columns"]
    assert "shop" in said["chosen"]
    about = json.loads((run / "features" / "features.json").read_text("utf-8"))
    assert {column["name"] for column in about["columns"]} == kept


def test_the_text_part_is_a_plain_model_of_the_scores_that_stand_beside(run: Path) -> None:
    from holdfast.models.encoders.checkpoint import load_saved

    result = json.loads((run / "result.json").read_text("utf-8"))
    assert load_saved(run / "model").classes == tuple(result["classes"])
    assert "features/features.safetensors" in result["seal"]["files"]
    assert "ext only, without columns" in (run / "report.html").read_text("utf-8")


def test_predict_and_evaluate_read_the_columns_and_refuse_a_table_without_them(
    holdfast: Callable[..., Any], run: Path, shops: Path, tmp_path: Path, write_csv: Any
) -> None:
    done = holdfast("predict", run, shops, "--out", "all.csv")
    assert done.code == 0, done.err
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    filled = [line for line in lines if line["shop"]]
    right = [line["prediction"][-1] == line["shop"] for line in filled]
    assert np.mean(right) > 0.95
    scored = holdfast("evaluate", run, shops, "--json")
    assert json.loads(scored.out)["metrics"]["accuracy"]["value"] > 0.7
    bare = write_csv(tmp_path / "bare.csv", [("w1 w2 good", "yes-a")])
    for command in (("predict", run, bare), ("evaluate", run, bare)):
        done = holdfast(*command)
        assert done.code == 2
        assert "shop" in done.err


def test_the_dashboard_asks_for_the_columns_that_the_model_reads(run: Path) -> None:
    from holdfast.plugins.dashboard.inference import ModelTrial, input_fields

    kept = json.loads((run / "result.json").read_text("utf-8"))["wrapper"]["columns"]
    wanted = {one["name"] for one in kept if one["kept"]} - {"text.length"}
    text, *features = (one.name for one in input_fields(run))
    assert (text, set(features)) == ("text", wanted)
    trial = ModelTrial()
    answer = asyncio.run(trial.predict(run, {"text": "w1 good", "shop": "a"}, False))
    trial.close()
    assert answer.prediction.endswith("-a")


def test_python_asks_with_a_frame_and_a_changed_layer_is_refused(
    run: Path, shops: Path, tmp_path: Path
) -> None:
    import shutil

    import pandas

    import holdfast as library
    from holdfast.runs.predictor import Predictor

    frame = pandas.read_csv(shops)
    found = library.load(run).predict(frame[:20]) if hasattr(library, "load") else None
    asked = Predictor.load(run).predict(str(shops))
    first = [p for part in asked.parts() for p in part.predictions][:20]
    assert found is None or found == first
    with pytest.raises(DataError, match="shop"):
        Predictor.load(run).predict(["w1 good"])
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    weights = copy / "features" / "features.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Exception, match="was changed since the run ended"):
        Predictor.load(copy)


@pytest.mark.slow
def test_columns_of_noise_are_not_used_and_the_run_is_the_one_without_them(
    shops: Path, quick: list[str], tmp_path: Path
) -> None:
    """Shuffled labels of nothing: the same model, to the byte, and the reason."""
    plain = train(override(Recipe(), [f"data.path={shops}", *quick]), tmp_path / "plain")
    given = [f"data.path={shops}", "data.features=[price, day]", *quick]
    noise = train(override(Recipe(), given), tmp_path / "noise")
    assert noise["wrapper"]["kind"] is None
    assert not (tmp_path / "noise" / "features").exists()
    model = Path("model") / "model.safetensors"
    assert (tmp_path / "noise" / model).read_bytes() == (tmp_path / "plain" / model).read_bytes()
    assert noise["test"] == {**plain["test"], "opened_at": noise["test"]["opened_at"]}


@pytest.mark.slow
def test_auto_proposes_and_changes_nothing(shops: Path, quick: list[str], tmp_path: Path) -> None:
    given = [f"data.path={shops}", "data.features=auto", *quick]
    result = train(override(Recipe(), given), tmp_path / "run")
    assert "wrapper" not in result
    found = {f["check"]: f for f in result["data"]["findings"] if f["check"].startswith("side_")}
    assert "'shop'" in found["side_column"]["because"]
    assert "data.features=[shop]" in found["side_column"]["remedy"]


@pytest.mark.parametrize(
    ("features", "rule"),
    [
        ("[shopp]", "no column"),
        ("[label]", "already"),
        ("true", "names no columns"),
        ("[text.url]", "only one value"),
        ("['shop:number']", "not a number"),
    ],
)
def test_a_column_that_cannot_be_one_is_refused(
    shops: Path, quick: list[str], tmp_path: Path, features: str, rule: str
) -> None:
    with pytest.raises((DataError, RecipeError), match=rule):
        train(
            override(Recipe(), [f"data.path={shops}", f"data.features={features}", *quick]),
            tmp_path / "r",
        )
    assert not (tmp_path / "r" / "result.json").exists()
    assert not (tmp_path / "r" / "events.jsonl").exists()  # refused before anything was trained
