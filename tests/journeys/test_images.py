"""``holdfast`` on real digits: the command alone, from a folder to predictions."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DIGITS = ("0", "1", "7")


@pytest.fixture(scope="module")
def digits(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few dozen pictures of three digits, in the archive's own train and test parts."""
    folder, taken = tmp_path_factory.mktemp("mnist"), dict.fromkeys(DIGITS, 0)
    with zipfile.ZipFile(shared_data / "mnist" / "mnist.zip") as archive:
        for part, count in (("train", 30), ("test", 12)):
            taken = dict.fromkeys(DIGITS, 0)
            for name in sorted(archive.namelist()):
                pieces = name.split("/")
                if name.endswith(".png") and pieces[1] == part and taken.get(pieces[2], 99) < count:
                    taken[pieces[2]] += 1
                    archive.extract(name, folder)
    return folder / "mnist"


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random ViT of two layers for pictures of 28 × 28."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("vit") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ViTForImageClassification(
            ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                image_size=28,
                patch_size=7,
            )
        ).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_folder_of_pictures_needs_a_model_and_nothing_else(
    holdfast: Callable[..., Any], digits: Path, small_vit: Path, own_verdict: Any
) -> None:
    done = holdfast("train", digits, "--model", small_vit, "--verbose", "--set", "train.epochs=2")
    assert done.code == 0, done.err
    assert "3 classes" in done.err
    assert "test rows" in done.err
    assert "ccuracy " in " ".join(done.out.split())
    run = Path("runs/mnist-1")
    result = json.loads((run / "result.json").read_text("utf-8"))
    assert result["task"] == "image-classification"
    assert result["data"]["test"] == 36
    assert result["test"]["metrics"]["accuracy"]["value"] > 0.5
    own_verdict(run)
    answers = holdfast("predict", run, digits / "test")
    lines = [json.loads(line) for line in answers.out.splitlines()]
    assert len(lines) == 36
    assert lines[0].keys() == {"row", "prediction", "confidence", "path"}
    scored = holdfast("evaluate", run, digits / "test", "--json")
    assert json.loads(scored.out)["metrics"]["accuracy"] == result["test"]["metrics"]["accuracy"]
    whole = holdfast("evaluate", run, digits)
    assert whole.code == 2
    assert f"Name the subfolder: {digits / 'test'}." in whole.err
    found = json.loads(holdfast("errors", run, "--json", "--topics", "--quiet").out)
    assert found["hardest"], "no test row is wrong"
    for one in (*found["hardest"], *(e for c in found["confusions"] for e in c["examples"])):
        assert (digits / "test" / one["text"]).is_file()
    assert found["topics"] == {"why": "rows hold no texts"}
    drifted = json.loads(holdfast("drift", run, digits / "test", "--json").out)
    assert "words" not in {*drifted["facts"], *drifted["unwatched"]}
    said = holdfast("explain", run).out
    assert "images have no words" in said
    again = holdfast("train", run / "recipe.yaml", "--out", "again", "--quiet")
    assert again.code == 0, again.err
    repeated = json.loads(Path("again/result.json").read_text("utf-8"))
    assert repeated["test"]["metrics"] == result["test"]["metrics"]


def test_a_folder_without_a_model_says_what_is_missing(
    holdfast: Callable[..., Any], digits: Path
) -> None:
    done = holdfast("train", digits)
    assert done.code == 2
    assert "--model" in done.err
    assert "Traceback" not in done.err
    assert not Path("runs").exists()


def test_a_table_of_paths_is_one_of_images(
    holdfast: Callable[..., Any], digits: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits / "train", tmp_path / "digits")
    paths = sorted((tmp_path / "digits").rglob("*.png"))
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in paths]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(["file,digit", *rows]) + "\n", "utf-8")
    done = holdfast("train", table, "--dry-run", "--label", "digit")
    assert done.code == 2
    assert "images need an image model" in done.err
    assert "'file' holds paths of image files" in done.err


def test_one_class_alone_is_an_error_that_helps(
    holdfast: Callable[..., Any], digits: Path, small_vit: Path, tmp_path: Path
) -> None:
    (tmp_path / "one" / "7").mkdir(parents=True)
    for path in (digits / "train" / "7").iterdir():
        (tmp_path / "one" / "7" / path.name).write_bytes(path.read_bytes())
    done = holdfast("train", tmp_path / "one", "--model", small_vit)
    assert done.code == 2
    assert "folder of its class" in done.err


def test_pictures_given_to_a_text_task_name_the_right_one(
    holdfast: Callable[..., Any], digits: Path
) -> None:
    done = holdfast("train", digits / "train", "--task", "text-classification")
    assert done.code == 2
    assert "--task image-classification" in done.err
