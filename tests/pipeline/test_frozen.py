"""Whether the outputs of frozen layers are kept: the setting, the reckoning, and a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.fits import prefix_caching
from holdfast.fits.prefix_caching import PrefixCost, choose_prefix_cache, count_passes
from holdfast.methods.sam import Sam
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.generators.causal import load_causal
from holdfast.models.layers import freeze
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.report.answer.answer import answer
from holdfast.tasks.classes import classifier
from holdfast.tasks.classes.encoding import EncodedTexts, TextClassification
from holdfast.tasks.lm.losses import CausalLM, EncodedTokens
from holdfast.training.plan import Phase, Plan

FINETUNE = Phase(
    name="finetune", steps=50, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-3
)
PLAN = Plan((FINETUNE,), (0, 25, 50), 12, 0)


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.fits.prefix_caching.PROBE_SECONDS", 0.05)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is really asked; only the seconds are given, since a busy machine's say nothing."""
    ask = prefix_caching.probe_prefix
    monkeypatch.setattr(prefix_caching, "probe_prefix", lambda *a: replace(ask(*a), saved_s=0.01))


def rows(n: int) -> EncodedTexts:
    rng = np.random.default_rng(n)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(4, 12, n))])
    ids = rng.integers(5, 40, offsets[-1]).astype(np.int32)
    return EncodedTexts(ids, None, offsets, np.arange(n), np.arange(n) % 2, np.zeros(n, bool))


def asked(tiny_model: Path, wanted: str, what: Any = 2, plan: Plan = PLAN, **more: Any) -> Any:
    network = load_classifier(str(tiny_model), ("a", "b")).network
    freeze(network, what)
    task = more.pop("task", TextClassification(0, ("a", "b")))
    return kept(wanted, network, task, rows(40), rows(16), plan, **more)


def kept(
    wanted: str, network: Any, task: Any, train: Any, valid: Any, plan: Plan = PLAN, **more: Any
) -> Any:
    """What is kept of the outputs of these rows, and what was decided."""
    settings = SimpleNamespace(cache_frozen=wanted, precision="float32")
    ready: Any = SimpleNamespace(
        recipe=SimpleNamespace(train=settings),
        loaded=SimpleNamespace(network=network),
        task=task,
        plan=plan,
        splits=SimpleNamespace(training_examples=train),
        valid=valid,
    )
    with record_decisions() as log:
        setting, prefix = choose_prefix_cache(ready, **more)
    return SimpleNamespace(setting=setting, prefix=prefix, decisions=tuple(log))


@pytest.mark.usefixtures("seconds")
def test_it_is_on_where_it_pays_and_says_why(tiny_model: Path) -> None:
    found = asked(tiny_model, "auto")
    assert found.setting == "on"
    assert found.prefix is not None
    (decision,) = found.decisions
    assert (decision.what, decision.chosen) == ("train.cache_frozen", "on")
    # 50 steps of 8 rows and 3 looks of 12 + 16 rows, over 56 rows.
    assert "each row passes them 8.6 times" in decision.because
    assert "s are saved" in decision.because


@pytest.mark.usefixtures("seconds")
def test_it_is_off_where_each_row_passes_once(tiny_model: Path) -> None:
    plan = replace(PLAN, phases=(replace(FINETUNE, steps=2),), evaluate_at=(0,))
    found = asked(tiny_model, "auto", plan=plan)
    assert (found.setting, found.prefix) == ("off", None)
    assert "would not save time" in found.decisions[0].because
    assert asked(tiny_model, "on", plan=plan).prefix is not None


@pytest.mark.parametrize("what", [None, 1])
def test_nothing_frozen_is_nothing_said(tiny_model: Path, what: Any) -> None:
    for wanted in ("auto", "off"):
        found = asked(tiny_model, wanted, what)
        assert (found.setting, found.prefix, found.decisions) == (wanted, None, ())
    with pytest.raises(RecipeError, match="has nothing to cache"):
        asked(tiny_model, "on", what)


def test_off_is_obeyed(tiny_model: Path) -> None:
    found = asked(tiny_model, "off")
    assert (found.setting, found.prefix) == ("off", None)
    assert found.decisions[0].because.startswith("set in the recipe")


def test_too_large_is_declined_and_where_asked_for_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    size = 128 * int(rows(40).lengths.sum() + rows(16).lengths.sum())
    monkeypatch.setattr(prefix_caching, "MAX_BYTES", size - 1)
    found = asked(tiny_model, "auto", folder=tmp_path / "absent" / "checkpoints")
    assert found.setting == "off"
    assert "MB are allowed" in found.decisions[0].because
    assert asked(tiny_model, "on", folder=tmp_path).setting == "on", "the bound is auto's"
    disk = SimpleNamespace(free=size - 1)
    monkeypatch.setattr(prefix_caching.shutil, "disk_usage", lambda _: disk)
    with pytest.raises(RecipeError, match="not possible here: their outputs take"):
        asked(tiny_model, "on", folder=tmp_path)
    (tmp_path / "prefix-train.rows").write_bytes(b"1234")
    assert asked(tiny_model, "on", folder=tmp_path).setting == "on", "its own file is free for it"


@pytest.mark.usefixtures("seconds")
def test_rows_that_share_lines_are_declined(tiny_llama: Path) -> None:
    network = load_causal(str(tiny_llama)).network
    freeze(network, 2)
    texts = rows(20)
    targets = np.ones(len(texts.ids), dtype=bool)
    targets[texts.offsets[:-1]] = False
    place = np.arange(20)
    examples = EncodedTokens(
        texts.ids, targets, texts.offsets, place, place, np.zeros(20, bool), np.arange(20)
    )
    for pack, why in ((True, "puts rows on a line"), (False, "s are saved")):
        found = kept("auto", network, CausalLM(pack=pack), examples, examples)
        assert (found.setting == "off") == pack
        assert why in found.decisions[0].because


def test_several_processes_are_declined(tiny_model: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes" in asked(tiny_model, "auto").decisions[0].because


def test_passes_are_counted_over_steps_looks_and_refits() -> None:
    contrast = replace(FINETUNE, name="contrast", head="refit", steps=6, batch_size=4)
    plan = Plan((contrast, FINETUNE), (0, 3, 6, 30, 56), 10, 0)
    assert count_passes(plan, 40, 16) == 6 * 4 + 50 * 8 + 5 * (10 + 16) + 2 * 40
    twice = Plan((contrast, replace(FINETUNE, stepper=Sam())), plan.evaluate_at, 10, 0)
    assert count_passes(twice, 40, 16) == count_passes(plan, 40, 16) + 50 * 8


def test_what_is_kept_is_counted_by_tokens_or_by_pictures() -> None:
    examples = rows(7)
    assert PrefixCost(None, 10).bytes_of(examples) == 10 * len(examples.ids)
    assert PrefixCost(None, 10, 197).bytes_of(examples) == 10 * 197 * 7


@pytest.mark.slow
@pytest.mark.usefixtures("seconds")
def test_a_run_with_it_is_the_run_without_it(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    told: dict[str, Any] = {}
    for name, more in (("kept", []), ("plain", ["train.cache_frozen=off"])):
        recipe = override(Recipe(), [f"data.path={marked_csv}", *quick, "model.freeze=2", *more])
        run = tmp_path / name
        told[name] = train(recipe, run)
        assert not (run / "checkpoints").exists()
        lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        told[f"{name} looks"] = [line for line in lines if line["event"] == "snapshot"]
        notes = [line for line in lines if line.get("what") == "train.cache_frozen"]
        assert [note["chosen"] for note in notes] == ["on" if name == "kept" else "off"]
    assert told["kept"]["settings"]["train"]["cache_frozen"] == "on"
    for key in ("train_loss", "valid_loss"):
        found, expected = (
            [look[key] for look in told[f"{name} looks"]] for name in ("kept", "plain")
        )
        assert found == pytest.approx(expected, rel=1e-4)
    losses = [told[name]["test"]["metrics"]["loss"]["value"] for name in ("kept", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_frozen_encoder_is_held_against_the_most_frequent_class(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    own = [one for one in quick if not one.startswith("methods.contrast")]
    settings = ["model.freeze=backbone", "train.epochs=1", "train.evaluations=1"]
    recipe = override(Recipe(), [f"data.path={marked_csv}", *own, *settings])
    result = train(recipe, tmp_path / "run")
    baseline = result["baseline"]
    assert [one["what"] for one in baseline["all"]] == ["majority class"]
    scores = (result["test"], baseline["test"])
    tuned, guess = (one["metrics"]["accuracy"]["value"] for one in scores)
    assert baseline["comparison"]["difference"]["value"] == pytest.approx(tuned - guess)
    said = answer(result)
    assert "linear probe" not in f"{said.headline} {said.advice}"
    assert "most frequent class" in said.headline


def test_the_test_rows_of_a_frozen_encoder_pass_once(
    marked_csv: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline is the most frequent class: no row passes for a linear probe."""

    def passed(**_: object) -> None:
        raise AssertionError("a linear probe predicted rows that no score needs")

    monkeypatch.setattr(classifier, "probe_network", lambda _: passed)
    own = [one for one in quick if not one.startswith("methods.contrast")]
    recipe = override(Recipe(), [f"data.path={marked_csv}", *own, "model.freeze=backbone"])
    assert train(recipe, tmp_path / "run")["baseline"]["what"] == "majority class"
    with pytest.raises(AssertionError, match="no score needs"):
        train(override(recipe, ["model.freeze=none"]), tmp_path / "other")


def test_contrast_has_nothing_to_train_in_a_frozen_encoder(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    recipe = override(Recipe(), [f"data.path={marked_csv}", *quick, "model.freeze=backbone"])
    with pytest.raises(RecipeError, match="keeps as pretrained"):
        train(recipe, tmp_path / "run")


def test_yaml_s_on_and_off_are_words() -> None:
    for typed, meant in (("on", "on"), ("off", "off"), ("true", "on"), ("auto", "auto")):
        assert override(Recipe(), [f"train.cache_frozen={typed}"]).train.cache_frozen == meant
    with pytest.raises(RecipeError, match="cache_frozen"):
        override(Recipe(), ["train.cache_frozen=maybe"])
