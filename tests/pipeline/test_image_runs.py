"""Whole runs on pictures: the folder they leave, killed and resumed ones, several seeds."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from tests.kills import KillAt
from tests.predicted import predict_lines

from holdfast.analyses.evaluation import evaluate
from holdfast.core.errors import DataError, ModelError
from holdfast.pipeline.main import train
from holdfast.pipeline.preview import preview
from holdfast.recipe import Recipe, override, read_recipe

QUICK = [
    "task=image-classification",
    "train.epochs=3",
    "train.precision=float32",
    "train.threads=1",
    "train.learning_rate=1e-3",
    "control.policy=off",
]
COLOURS = {"blue": 2, "green": 1, "red": 0}


def _tiny_vision() -> Any:
    place = Path(__file__).parents[1] / "models" / "vision.py"
    spec = importlib.util.spec_from_file_location("vision_models", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.tiny_vision


def coloured(folder: Path, count: int = 30, seed: int = 0) -> Path:
    """Noise whose class's channel is a little brighter; one picture in ten is of another class."""
    rng = np.random.default_rng(seed)
    for name, channel in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            noise = rng.integers(0, 200, (12, 10, 3))
            shown = channel if rng.random() < 0.9 else (channel + 1) % 3
            noise[..., shown] += 55
            Image.fromarray(noise.astype(np.uint8)).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module", params=["resnet", "vit"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = _tiny_vision()(tmp_path_factory.mktemp("vision") / kind, kind)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("pictures") / "colours")


@pytest.fixture(scope="module")
def settings(model: Path, pictures: Path) -> list[str]:
    return [f"data.path={pictures}", f"model.name={model}", *QUICK]


@pytest.fixture(scope="module")
def run(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(override(Recipe(), settings), folder)
    return folder


def result(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return read


def looks(run: Path) -> list[dict[str, Any]]:
    """The snapshots without their clocks: what a lost running statistic would change."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    kept = [line for line in lines if line["event"] == "snapshot"]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in kept]


@pytest.mark.slow
def test_the_run_folder_is_complete(run: Path) -> None:
    names = {
        "recipe.yaml",
        "result.json",
        "events.jsonl",
        "report.html",
        "model",
        "predictions.parquet",
        "splits.parquet",
        "answers.parquet",
        "examples.parquet",
        "looks.npz",
    }
    assert {path.name for path in run.iterdir()} == names
    found = result(run)
    assert found["task"] == "image-classification"
    assert found["classes"] == list(COLOURS)
    assert found["baseline"]["what"] in ("linear probe", "majority class")
    assert set(found["test"]["metrics"]) >= {"accuracy", "f1_macro", "loss", "ece"}
    assert 0 <= found["test"]["metrics"]["accuracy"]["low"] < 1
    assert found["timing"]["examples_per_s"] > 0


def test_plain_transformers_gives_the_scored_outputs(run: Path, pictures: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    rows = parquet.read_table(run / "predictions.parquet").to_pylist()
    files = sorted(pictures.rglob("*.png"))
    plain = AutoModelForImageClassification.from_pretrained(run / "model").eval()
    processor = AutoImageProcessor.from_pretrained(run / "model", backend="pil")
    images = [Image.open(files[row["row"]]) for row in rows]
    with torch.no_grad():
        logits = plain(**processor(images, return_tensors="pt")).logits.double()
    expected = torch.log_softmax(logits, dim=1).numpy()
    scored = np.log(np.array([row["probabilities"] for row in rows]))
    assert np.abs(scored - expected).max() <= 1e-4 * np.abs(expected).max()
    labels = [list(COLOURS).index(row["label"]) for row in rows]
    losses = -expected[np.arange(len(rows)), labels]
    assert np.allclose([row["loss"] for row in rows], losses, atol=1e-4)


def test_the_report_shows_small_pictures_and_asks_for_nothing(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    assert page.count('src="data:image/jpeg;base64,') == sum(
        len(rows) for rows in result(run)["hardest"].values()
    )
    assert "img-src data:" in page
    assert len(page) < 1_500_000
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_the_hardest_rows_name_their_file(run: Path, pictures: Path) -> None:
    for row in result(run)["hardest"]["loss"]:
        assert (pictures / row["text"]).is_file()


@pytest.mark.slow
def test_the_recipe_repeats_the_run(run: Path, tmp_path: Path) -> None:
    again = train(read_recipe(run / "recipe.yaml"), tmp_path / "again")
    assert again["test"]["metrics"] == result(run)["test"]["metrics"]
    one, two = ((r / "model" / "model.safetensors").read_bytes() for r in (run, tmp_path / "again"))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 6])
def test_a_killed_run_ends_as_if_it_had_not_been(
    run: Path, settings: list[str], tmp_path: Path, killed: type[BaseException], at: int
) -> None:
    recipe = override(Recipe(), settings)
    with pytest.raises(killed):
        train(
            recipe,
            tmp_path / "r",
            listeners=(KillAt("step_done", at, killed),),
            checkpoint_every_s=0.0,
        )
    torch.manual_seed(99)
    train(recipe, tmp_path / "r", resume=True)
    for name in ("model/model.safetensors", "predictions.parquet", "splits.parquet"):
        one, two = (hashlib.sha256((r / name).read_bytes()).digest() for r in (run, tmp_path / "r"))
        assert one == two, name
    assert result(tmp_path / "r")["test"]["metrics"] == result(run)["test"]["metrics"]
    assert looks(tmp_path / "r") == looks(run)


@pytest.mark.slow
def test_the_best_state_brings_its_running_statistics(tmp_path: Path, pictures: Path) -> None:
    """The saved model gives the validation loss of the state that was kept, batch norms and all."""
    from holdfast.data.images.table import load_images
    from holdfast.models.vision.vision import load_saved_vision
    from holdfast.tasks.images.losses import answer_images

    model = _tiny_vision()(tmp_path / "m", "resnet")
    recipe = override(
        Recipe(),
        [
            f"data.path={pictures}",
            f"model.name={model}",
            *QUICK,
            "train.epochs=6",
            "train.learning_rate=0.05",
            "control.policy=off",
            "train.keep=lowest",
            "train.metric=loss",
        ],
    )
    found = train(recipe, tmp_path / "r")
    assert found["best_step"] < found["last_step"]
    records = parquet.read_table(tmp_path / "r" / "splits.parquet").to_pylist()
    table = load_images(pictures)
    chosen = [r["row"] for r in records if r["split"] == "valid"]
    outputs = answer_images(load_saved_vision(tmp_path / "r" / "model"), table.take(chosen))
    assert outputs.losses.mean() == pytest.approx(
        found["valid"]["metrics"]["loss"]["value"], rel=1e-4
    )


def test_predict_gives_a_line_for_every_file(run: Path, tmp_path: Path) -> None:
    folder = coloured(tmp_path / "new", 4, seed=3)
    (folder / "blue" / "02.png").write_bytes(b"")
    lines = [json.loads(line) for line in predict_lines([run], str(folder))]
    assert [line["row"] for line in lines] == list(range(12))
    assert lines[2]["prediction"] is None
    assert lines[3]["path"] == "blue/03.png"
    assert {line["prediction"] for line in lines} - {None} <= set(COLOURS)


def test_predictions_of_several_runs_are_averaged(run: Path, tmp_path: Path) -> None:
    folder = coloured(tmp_path / "new", 2, seed=3)
    one, two = predict_lines([run], str(folder)), predict_lines([run, run], str(folder))
    assert one == two


def test_evaluate_scores_a_folder_and_a_table_alike(run: Path, tmp_path: Path) -> None:
    folder = coloured(tmp_path / "new", 6, seed=4)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    lines = ["path,label", *(f"{name},{name.split('/')[0]}" for name in names)]
    (folder / "list.csv").write_text("\n".join(lines), "utf-8")
    by_folder, by_table = evaluate(run, str(folder)), evaluate(run, str(folder / "list.csv"))
    assert by_folder["n"] == 18
    assert by_folder["metrics"]["accuracy"] == by_table["metrics"]["accuracy"]
    assert math.isfinite(by_folder["metrics"]["loss"]["value"])


def test_a_list_of_paths_is_predicted_in_its_order(run: Path, pictures: Path) -> None:
    from holdfast.api.trained_run import TrainedRun

    paths = [str(pictures / name) for name in ("red/03.png", "blue/01.png", "green/02.png")]
    lines = [json.loads(line) for line in predict_lines([run], paths)]
    assert [Path(line["path"]).name for line in lines] == ["03.png", "01.png", "02.png"]
    done = TrainedRun(run)
    assert done.predict(paths) == [line["prediction"] for line in lines]
    assert done.predict(Path(paths[0])) == [lines[0]["prediction"]]
    assert type(done.model).__name__.endswith("ForImageClassification")


def test_lines_of_text_are_no_pictures(run: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        predict_lines([run], ["a text"])


@pytest.mark.slow
def test_parts_for_test_and_validation_are_used_as_they_are(model: Path, tmp_path: Path) -> None:
    for seed, (part, count) in enumerate({"train": 10, "valid": 4, "test": 5}.items()):
        coloured(tmp_path / "all" / part, count, seed)
    first = tmp_path / "all" / "test" / "red" / "00.png"
    (tmp_path / "all" / "train" / "red" / "leak.png").write_bytes(first.read_bytes())
    found = train(
        override(
            Recipe(),
            [f"data.path={tmp_path / 'all'}", f"model.name={model}", *QUICK, "train.max_steps=2"],
        ),
        tmp_path / "r",
    )
    assert (found["data"]["train"], found["data"]["test"]) == (30, 15)
    assert found["data"]["valid"] == 12
    assert found["division"]["dropped"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        ["model.freeze=0.5", "methods.probe_first=false", "train.accumulate=2"],
        ["methods.contrast.steps=3", "train.precision=bfloat16", "train.metric=f1_macro"],
    ],
)
def test_settings_of_the_loop_hold_for_pictures(
    settings: list[str], tmp_path: Path, extra: list[str]
) -> None:
    found = train(override(Recipe(), [*settings, "train.max_steps=6", *extra]), tmp_path / "r")
    assert math.isfinite(found["test"]["metrics"]["loss"]["value"])


@pytest.mark.slow
def test_the_plan_is_shown_without_writing(settings: list[str]) -> None:
    plan = preview(override(Recipe(), settings))
    assert sum(plan["division"].values()) == 90
    assert plan["parameters"]["share"] == 1.0


def test_the_default_model_is_refused_with_what_to_do(pictures: Path, tmp_path: Path) -> None:
    recipe = override(Recipe(), ["task=image-classification", f"data.path={pictures}"])
    with pytest.raises(ModelError, match="image model") as caught:
        train(recipe, tmp_path / "r")
    assert "--model" in caught.value.remedy
    assert not (tmp_path / "r").exists()
