"""What a verdict advises is taken by its task, and not what its own run has shown to be wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import RecipeError
from holdfast.fits.run_facts import check_settings, refused_settings
from holdfast.monitor.history import History
from holdfast.monitor.judge import judge
from holdfast.monitor.remedies import FIXED
from holdfast.recipe import Recipe, override

RECIPES = {
    "classes": ["task=text-classification"],
    "several labels": ["task=text-classification", "data.label_kind=several"],
    "numbers": ["task=text-classification", "data.label_kind=number"],
    "tags": ["task=token-classification"],
    "images": ["task=image-classification"],
    "seq2seq": ["task=seq2seq"],
    "causal-lm": ["task=causal-lm"],
}
# Worked out from the run, or a name that only the reader knows.
FREE = ("train.epochs=", "train.learning_rate=", "data.group=", "data.target=", "data.split.")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_remedy_of_every_verdict_is_taken_by_the_task(name: str, verdicts: Any) -> None:
    recipe = override(Recipe(), RECIPES[name])
    found = verdicts.every_verdict(str(recipe.task), refused_settings(recipe))
    for _, verdict in found:
        for remedy in verdict.remedies:
            assert remedy.do
            for setting in remedy.set:
                assert setting.startswith(FREE) or setting in FIXED, setting
            check_settings(recipe, remedy.set)
    advised = {s for _, verdict in found for remedy in verdict.remedies for s in remedy.set}
    assert advised & set(FIXED), "nothing is advised"
    if name == "causal-lm":
        with pytest.raises(RecipeError, match="does not apply to causal-lm"):
            check_settings(recipe, ["train.label_smoothing=0.1"])
        assert "train.weight_decay=0.1" in advised, "what is left of a remedy is still advised"


@pytest.mark.parametrize("name", RECIPES)
def test_no_remedy_is_what_the_run_has_shown_to_be_wrong(name: str, verdicts: Any) -> None:
    task = override(Recipe(), RECIPES[name]).task
    for history, verdict in verdicts.every_verdict(str(task)):
        if not history.snapshots:
            continue
        last, told = history.snapshots[-1], (verdict.label, verdict.cause, verdict.remedies)
        epochs, rates = (
            settings_of(verdict, "train.epochs"),
            settings_of(verdict, "train.learning_rate"),
        )
        peak = max(look.learning_rate for look in history.snapshots)
        if verdict.label in ("overfit", "memorizing", "diverging") or history.at_floor:
            assert all(value <= last.epoch for value in epochs), told
            assert not any(one.aim == "longer" for one in verdict.remedies), told
        if verdict.label in ("underfit", "learning"):
            assert all(value >= last.epoch for value in epochs), told
        if verdict.label == "diverging" or "too high" in (verdict.cause or ""):
            assert all(value <= peak for value in rates), told
        elif "too low" in (verdict.cause or ""):
            assert all(value >= peak for value in rates), told


def settings_of(verdict: Any, key: str) -> list[float]:
    pairs = [s.partition("=") for remedy in verdict.remedies for s in remedy.set]
    return [float(value) for name, _, value in pairs if name == key]


@pytest.mark.parametrize(("train", "valid", "longer"), [(0.99, 0.7, False), (0.8, 0.7, True)])
def test_training_longer_is_no_remedy_where_nearly_every_token_is_known(
    train: float, valid: float, longer: bool, verdicts: Any
) -> None:
    """The losses still fall, and no row is fitted as a whole: the share of tokens tells."""
    falling = verdicts.kit.course(np.linspace(1.5, 0.3, 6), np.linspace(1.5, 0.9, 6), 60)
    written = verdicts.of_task(falling, "causal-lm")
    last = dataclasses.replace(
        written.snapshots[-1],
        train_metrics={"token_accuracy": train},
        valid_metrics={"token_accuracy": valid},
    )
    history = (*written.snapshots[:-1], last)
    assert not History(history).at_floor
    verdict = judge(history, dataclasses.replace(written.run_facts, planned_steps=None))
    assert verdict.label == "learning", verdict
    assert any(value > last.epoch for value in settings_of(verdict, "train.epochs")) == longer


def test_what_a_recipe_has_already_is_no_remedy() -> None:
    recipe = override(Recipe(), ["task=causal-lm", "model.adapter.kind=lora"])
    assert "model.adapter.kind=lora" in refused_settings(recipe)
    assert "model.freeze=0.75" not in refused_settings(recipe)


def test_no_remedy_takes_back_what_the_recipe_does_already() -> None:
    stronger = [
        "train.weight_decay=0.3",
        "train.label_smoothing=0.2",
        "train.layer_decay=0.7",
        "train.warmup=0.3",
        "train.clip=0.1",
        "model.freeze=0.9",
    ]
    task = override(Recipe(), ["task=text-classification"])
    names = {setting.partition("=")[0] for setting in stronger}
    of_these = {setting for setting in FIXED if setting.partition("=")[0] in names}
    assert len(of_these) == len(stronger)
    assert of_these <= set(refused_settings(override(task, stronger)))
    weaker = ["train.weight_decay=0.01", "train.layer_decay=0.99", "train.clip=2", "model.freeze=2"]
    assert not of_these & set(refused_settings(override(task, weaker)))
