"""``control.policy=adapt`` plans for few updates where the recipe limits them: a higher learning
rate, and contrast alone in place of fine-tuning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.fits.policies import (
    FEW_UPDATES,
    MOST_FASTER,
    plan_for_few_updates,
    within_measured_recipe,
)
from holdfast.pipeline.main import train
from holdfast.plan.defaults import plan_phases, resolve_settings
from holdfast.recipe import Recipe, override
from holdfast.recipe.resolution import resolve_recipe

# A small model. 120 rows: 40 updates of contrast, 32 rows each, by default. 500 rows: fine-tuning.
SMALL = 20_000_000
RATE = 1e-4
MACHINE = (
    "task=text-classification",
    "train.precision=float32",
    "train.threads=1",
    "train.matmul=default",
)


def rate_of(*settings: str, rows: int = 120, model: str | None = None) -> float | None:
    recipe = override(Recipe(), [*MACHINE, "control.policy=adapt", *settings])
    changed, decisions = plan_for_few_updates(recipe, SMALL, rows, model, 2)
    assert len(decisions) == (changed.train.learning_rate != recipe.train.learning_rate)
    return changed.train.learning_rate


def phases_of(*settings: str, rows: int) -> list[tuple[str, int, float]]:
    """The phases of the plan for few updates: name, updates and peak learning rate."""
    recipe = override(Recipe(), [*MACHINE, "control.policy=adapt", *settings])
    changed, _ = plan_for_few_updates(recipe, SMALL, rows, None, 2)
    resolved = resolve_recipe(resolve_settings(changed, SMALL, rows, None, 2)[0])
    phases = plan_phases(resolved, SMALL, rows, None, 2)
    return [(one.name, one.steps, one.learning_rate) for one in phases]


@pytest.mark.parametrize(
    ("settings", "ratio"),
    [
        (["train.max_steps=8"], 40 / 8),
        (["train.max_steps=32"], 40 / 32),
        (["train.epochs=2"], 40 / int(2 * 120 / 32)),
        (["train.max_steps=1"], MOST_FASTER**2),
    ],
)
def test_the_rate_grows_with_the_root_of_the_missing_updates(
    settings: list[str], ratio: float
) -> None:
    assert rate_of(*settings) == pytest.approx(RATE * math.sqrt(ratio))


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["train.max_steps=40"],
        ["train.epochs=50"],
        ["train.max_steps=8", "control.policy=stop"],
        ["train.max_steps=8", "methods.contrast=false"],
        ["train.max_steps=8", "model.adapter.kind=lora"],
    ],
    ids=str,
)
def test_any_other_plan_has_the_default_rate(settings: list[str]) -> None:
    assert rate_of(*settings) is None


def test_a_rate_of_the_recipe_and_a_plan_without_a_benchmark_are_left_alone() -> None:
    assert rate_of("train.max_steps=8", "train.learning_rate=7e-5") == 7e-5
    assert rate_of("train.max_steps=8", model="vision") is None


# 500 rows: by default 6 epochs of fine-tuning, 32 updates each.
@pytest.mark.parametrize(
    ("settings", "updates", "factor"),
    [
        (["train.max_steps=8"], 8, MOST_FASTER),
        (["train.max_steps=40"], 40, math.sqrt(192 / 40)),
        (["train.max_steps=8", "methods.probe_first=false"], 8, MOST_FASTER),
        # 32 updates of fine-tuning, or 15 of contrast, with 32 rows each.
        (["train.epochs=1"], 15, math.sqrt(192 / 32)),
    ],
)
def test_contrast_takes_few_updates_of_a_plan_that_fine_tunes(
    settings: list[str], updates: int, factor: float
) -> None:
    (name, steps, rate), *others = phases_of(*settings, rows=500)
    assert (name, steps, others) == ("contrast", updates, [])
    assert rate == pytest.approx(RATE * factor)


@pytest.mark.parametrize(
    "settings",
    [
        [f"train.max_steps={FEW_UPDATES + 1}"],
        ["train.max_steps=8", "train.learning_rate=7e-5"],
        ["train.max_steps=8", "control.policy=stop"],
        ["train.max_steps=8", "methods.contrast=false"],
        ["train.max_steps=8", "methods.rdrop=true"],
        ["train.max_steps=8", "train.batch_size=4"],
        ["train.max_steps=8", "model.freeze=backbone"],
        ["train.max_steps=8", "model.adapter.kind=lora"],
    ],
    ids=str,
)
def test_any_other_plan_fine_tunes(settings: list[str]) -> None:
    (name, _, _), *others = phases_of(*settings, rows=500)
    assert (name, others) == ("finetune", [])


def test_few_updates_at_a_rate_far_too_high_are_no_measured_recipe() -> None:
    """Their sum of learning rates is small, and their last checkpoint may be worse than the first:
    8 updates at ten times the rate scored 52 %, the linear probe 72 % (500 questions)."""
    for rate, measured in ((RATE, True), (MOST_FASTER * RATE, True), (10 * RATE, False)):
        asked = override(
            Recipe(),
            [*MACHINE, "control.policy=stop", f"train.learning_rate={rate}", "train.max_steps=8"],
        )
        recipe = resolve_recipe(resolve_settings(asked, SMALL, 500, None, 2)[0])
        phases = plan_phases(recipe, SMALL, 500, None, 2)
        assert within_measured_recipe(recipe, phases, (SMALL, 500, 2), None) == measured


def test_a_phase_with_all_updates_of_the_recipe_leaves_none_for_fine_tuning() -> None:
    stop = ("control.policy=stop", "train.max_steps=20")
    assert phases_of(*stop, "methods.contrast.steps=20", rows=500)[0][:2] == ("contrast", 20)
    both = phases_of(*stop, "methods.contrast.steps=12", rows=500)
    assert [one[:2] for one in both] == [("contrast", 10), ("finetune", 10)]


def test_a_run_of_few_updates_has_the_higher_rate_and_says_so(
    tmp_path: Path, tiny_model: Path, marked_rows: Any, write_csv: Any
) -> None:
    path = write_csv(tmp_path / "rows.csv", marked_rows(120))
    asked = [
        *MACHINE,
        f"data.path={path}",
        f"model.name={tiny_model}",
        "train.max_steps=4",
        "control.policy=adapt",
    ]
    run = tmp_path / "run"
    result = train(override(Recipe(), asked), run)
    stored = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    assert stored["train"]["learning_rate"] == pytest.approx(RATE * MOST_FASTER)
    assert result["control"]["steps"] == 4
    told = [one["because"] for one in result["decisions"] if one["what"] == "train.learning_rate"]
    assert len(told) == 1
    assert told[0].startswith("the recipe allows 4 updates of the 40 in the default plan")
    assert "learning rate of 0.0001 is multiplied by 3" in told[0]
