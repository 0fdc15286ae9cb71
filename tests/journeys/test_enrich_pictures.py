"""Pictures in other forms as a user has them: by evidence, by set, or not at all."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holdfast.core.errors import Interrupted, RecipeError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override, read_recipe

QUICK = [
    "task=image-classification",
    "train.epochs=2",
    "train.precision=float32",
    "train.threads=1",
    "train.learning_rate=1e-3",
    "train.keep=last",
    "control.policy=off",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Path(__file__).parents[1] / "models" / "vision.py"
    spec = importlib.util.spec_from_file_location("vision_models_of_enrich", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    made: Path = module.tiny_vision(tmp_path_factory.mktemp("vision") / "resnet", "resnet")
    return made


def drawn(folder: Path, sided: bool) -> Path:
    """Two classes of 40 pictures: the bright bar stands left or right, or up or down."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("one", "two")):
        (folder / name).mkdir(parents=True)
        for index in range(40):
            values = rng.integers(0, 120, (16, 16, 3))
            at = 2 + 9 * number
            place = (
                (slice(3, 13), slice(at, at + 3)) if sided else (slice(at, at + 3), slice(3, 13))
            )
            values[place] += 120
            Image.fromarray(values.astype(np.uint8)).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("level") / "pictures", sided=False)


@pytest.fixture(scope="module")
def sided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("sided") / "pictures", sided=True)


def go(data: Path, model: Path, folder: Path, *settings: str, **more: Any) -> dict[str, Any]:
    given = [f"data.path={data}", f"model.name={model}", *QUICK, *settings]
    return train(override(Recipe(), given), folder, **more)


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def told(result: dict[str, Any]) -> dict[str, str]:
    lines = [one for one in result["decisions"] if one["what"] == "augmentation"]
    return {one["chosen"].split(" (")[0]: one["because"] for one in lines}


@pytest.mark.slow
def test_pictures_are_mirrored_only_where_a_mirror_means_the_same(
    level: Path, sided: Path, model: Path, tmp_path: Path
) -> None:
    lines = told(go(level, model, tmp_path / "level", "enrich.usual=true"))
    assert set(lines) == {"usual", "images are mirrored"}
    lines = told(go(sided, model, tmp_path / "sided", "enrich.usual=true"))
    assert set(lines) == {"usual", "images are not mirrored"}
    assert "flipped" in lines["images are not mirrored"]
    kept = read_recipe(tmp_path / "sided" / "recipe.yaml").enrich
    assert kept == {"usual": {"share": 1.0, "strength": 0.125, "mirror": "no"}}
    train(read_recipe(tmp_path / "sided" / "recipe.yaml"), tmp_path / "again")
    assert weights(tmp_path / "again") == weights(tmp_path / "sided")


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["enrich.flip=true", "enrich.usual.mirror=yes"])
def test_a_mirror_that_is_set_is_used_and_warned_of(
    sided: Path, level: Path, model: Path, tmp_path: Path, setting: str
) -> None:
    for data, warned in ((sided, True), (level, False)):
        result = go(data, model, tmp_path / data.parent.name, setting)
        assert set(told(result)) == {setting.split(".")[1].split("=")[0]}
        checks = [one["check"] for one in result["data"]["findings"]]
        assert ("mirror_changes_meaning" in checks) is warned


class Kill:
    name = "kill"

    def step_done(self, run: Any) -> None:
        if run.step == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_killed_run_with_mixed_pictures_ends_as_one_that_was_left_alone(
    level: Path, model: Path, tmp_path: Path
) -> None:
    asked = ("enrich.cutmix=true", "enrich.mixup=true", "enrich.trivial_augment.share=0.7")
    result = go(level, model, tmp_path / "whole", *asked, "train.label_smoothing=0.1")
    assert set(told(result)) == {"cutmix", "mixup", "trivial_augment"}
    with pytest.raises(Interrupted):
        go(
            level,
            model,
            tmp_path / "killed",
            *asked,
            "train.label_smoothing=0.1",
            listeners=[Kill()],
            checkpoint_every_s=0,
        )
    train(Recipe(), tmp_path / "killed", resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_unasked_the_pictures_stay_as_they_are(level: Path, model: Path, tmp_path: Path) -> None:
    assert told(go(level, model, tmp_path / "plain")) == {}
    assert told(go(level, model, tmp_path / "off", "enrich.usual=false")) == {}
    assert weights(tmp_path / "off") == weights(tmp_path / "plain")
    go(level, model, tmp_path / "moved", "enrich.crop=true")
    assert weights(tmp_path / "moved") != weights(tmp_path / "plain")


def test_ways_for_texts_are_refused_for_pictures(level: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is only for texts") as caught:
        go(level, model, tmp_path / "run", "enrich.eda=true")
    assert "trivial_augment" in caught.value.remedy
    assert not (tmp_path / "run").exists()
