"""Which base model a run begins from, where the recipe leaves it open."""

from __future__ import annotations

import csv
import hashlib
import math
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.dummy import DummyClassifier
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from tests.kills import KillAt

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.errors import DataError, Interrupted, ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.fits import cross_fitting, row_use
from holdfast.models.loading.hub_models import HUB_MODELS, hub_models
from holdfast.models.loading.local import LocalModel, SkippedModel
from holdfast.pipeline.main import train
from holdfast.pipeline.preview import preview
from holdfast.prepare import base_model
from holdfast.prepare.base_model import BaseModels, Prior, expected_advantage
from holdfast.prepare.model import prepare_divided
from holdfast.prepare.probe_evidence import FrozenRows, LayerFeatures, assign_folds
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.search.folds.cross_validation import CrossValidation

WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """80 rows of random words, those of one class in capitals: the embedded model reads no case,
    and the tiny one knows no capitals. A fifth of the labels is wrong."""
    draw = random.Random(0)
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        for place in range(80):
            text = " ".join(draw.choices(WORDS, k=8))
            is_loud = bool(place % 2) is not (place % 10 in (3, 6))
            out.writerow([text.upper() if place % 2 else text, "loud" if is_loud else "calm"])
    return path


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def other(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second encoder on this machine, a tiny one."""
    folder = tmp_path / "models" / "tiny"
    shutil.copytree(tiny_model, folder)
    monkeypatch.setenv("HOLDFAST_MODELS", str(folder.parent))
    return folder


@pytest.fixture
def prepared(rows: Path) -> Callable[..., tuple[PreparedData, Any, Any]]:
    def make(*settings: str) -> tuple[PreparedData, Any, Any]:
        # Threads and products are measured otherwise.
        machine = ["train.threads=1", "train.matmul=default"]
        recipe = override(Recipe(), [f"data.path={rows}", *machine, *settings])
        divided = load_and_divide(recipe)
        return prepare_divided(divided.recipe, divided.splits, divided.findings)

    return make


def test_without_another_encoder_the_embedded_one_is_taken_and_nothing_is_spent(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> float:
        raise AssertionError("the speed of the machine was measured")

    monkeypatch.setattr(base_model, "operations_per_second", measured)
    monkeypatch.setattr(base_model, "detect_language", lambda _: "en")
    with record_decisions() as told:
        made, _, _ = prepared()
    assert (made.recipe.model.name, made.base_models) == ("embedded", None)
    named, _, _ = prepared("model.name=embedded")
    assert made.recipe == named.recipe
    assert made.notes == named.notes
    (hint,) = (one for one in told if isinstance(one, Decision) and one.what == "base model")
    assert (hint.what, hint.chosen) == ("base model", "embedded")
    assert hint.because.endswith(
        "by 4 accuracy points (linear probe) (--download adds BAAI/bge-base-en-v1.5, not measured: "
        "109 M parameters, MIT)"
    )


def test_the_model_that_tells_the_classes_apart_is_taken_and_the_reason_is_given(
    prepared: Any, other: Path
) -> None:
    made, _, _ = prepared()
    assert made.recipe.model.name == str(other)
    chosen, embedded = made.base_models.decisions
    assert chosen.what == "base model"
    assert chosen.chosen.startswith("tiny")
    assert chosen.prominent
    assert "linear probe: accuracy 76.8 % out of fold (56 rows)" in chosen.because
    assert "the highest expected score after training; licence not stated" in chosen.because
    assert chosen.because.endswith(f"SHA-256 {file_sha256(other / 'model.safetensors')[:12]}")
    assert (embedded.what, embedded.chosen) == ("base model embedded", "not chosen")
    # What was chosen for the embedded model's probe was set by nobody.
    reasons = {one.what: one.because for one in made.machine.decisions}
    assert reasons["train.threads"] == "set in the recipe"
    assert reasons["train.precision"] != "set in the recipe"
    named, _, _ = prepared("model.name=embedded")
    assert (named.recipe.model.name, named.base_models) == ("embedded", None)


@pytest.mark.slow
def test_a_table_of_token_vectors_is_that_of_the_embedded_model(prepared: Any, other: Path) -> None:
    """The probes of contextual features say nothing of it."""
    made, _, _ = prepared("model.static=true")
    assert (made.recipe.model.name, made.base_models) == ("embedded", None)


def test_the_choice_hangs_on_the_labels_of_the_training_rows_alone(
    prepared: Any, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, train_rows, valid = prepared()
    models: BaseModels = made.base_models
    before = models.choose(train_rows).decisions
    assert before == models.decisions
    unseen = np.isin(models.sample, valid)
    assert unseen.any()
    for candidate in models.candidates:
        candidate.rows.labels[unseen[candidate.rows.features.owner]] ^= 1
    assert models.choose(train_rows).decisions == before
    assert models.choose(np.union1d(train_rows, valid)).decisions != before


def test_rows_that_may_be_cross_fitted_choose_together_and_others_by_training_rows(
    rows: Path, other: Path, chosen_by: list[set[int]]
) -> None:
    recipe = override(Recipe(), [f"data.path={rows}", "train.threads=1"])
    divided = load_and_divide(recipe)
    learning = row_use.learning_rows(recipe, divided)
    everything = len(divided.splits.train) + len(divided.splits.valid)
    assert (learning.folds, chosen_by) == (2, [set(range(everything))])
    alone = recipe.with_changes(train={"folds": 0})
    row_use.learning_rows(alone, load_and_divide(alone))
    assert chosen_by[1] == set(range(len(divided.splits.train)))


def test_a_probe_that_knows_only_the_shares_has_the_brier_score_of_a_dummy() -> None:
    labels = np.random.default_rng(0).choice(3, p=[0.5, 0.3, 0.2], size=90)
    features = LayerFeatures({"head": np.ones((90, 4))}, np.arange(90), None, 1.0)
    frozen = FrozenRows(features, np.arange(90), labels, np.arange(90), "class", ())
    folds = assign_folds(np.arange(90), labels, 0)
    dummy = cross_val_predict(
        DummyClassifier(strategy="prior"),
        np.ones((90, 1)),
        labels,
        cv=PredefinedSplit(folds),
        method="predict_proba",
    )
    expected = brier_score_loss(labels, dummy, scale_by_half=False)
    assert frozen.evidence(folds).errors.mean() == pytest.approx(expected)


def test_a_model_that_is_too_dear_is_named_but_not_taken(
    prepared: Any, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "operations_per_second", lambda _: 1e3)
    made, _, _ = prepared("model.freeze=none")
    assert made.recipe.model.name == "embedded"
    dear = next(d for d in made.base_models.decisions if d.what == "base model tiny")
    assert dear.chosen == "not compared"
    monkeypatch.setattr(base_model, "PROBING_S", 1e9)
    made, _, _ = prepared("model.freeze=none", "model.budget=0.01")
    dear = next(d for d in made.base_models.decisions if d.what == "base model tiny")
    assert "more than the budget of 1 s (model.budget)" in dear.because


def test_the_embedded_model_is_never_too_dear() -> None:
    """It was considered: a better one within the budget is why it was not chosen."""
    none: Any = None
    flat = base_model.Advantage(0.0, 0.0)
    embedded, frozen, dear = (
        base_model.Option(none, mode, flat, expected, seconds)
        for mode, expected, seconds in (
            ("tuned", 0.02, 146.0),
            ("frozen", 0.05, 23.0),
            ("tuned", 0.1, 600.0),
        )
    )
    options = [embedded, frozen, dear]
    reasons = [base_model._reason(one, frozen, 0.05, 60.0, options) for one in options]
    assert reasons[0] == "expected score after training −3.0 points relative to the chosen model"
    assert reasons[2] == "more than the budget of 1 min 00 s (model.budget)"


def test_folds_are_left_out_where_only_a_fit_without_them_is_within_the_budget(
    prepared: Any, rows: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "operations_per_second", lambda _: 1e6)
    monkeypatch.setattr(base_model, "PROBING_S", 1e9)
    made, _, _ = prepared("model.budget=500000")
    assert (Path(made.recipe.model.name), made.recipe.train.folds) == (other, None)
    tiny = made.base_models.candidates[1]
    # 40 steps of 32 rows: once on all 68 labelled rows, and on half of them for each of two folds;
    # 25 steps on the 56 training rows alone.
    assert (tiny.folds, tiny.passed(56, 2), tiny.passed(56, 0)) == (2, 2 * 1280, 800)
    seconds = tiny.operations * 1280 * (1 + base_model.BACKWARD) / base_model.TRAINING / 1e6
    for share, name, folds in ((1.9, "tiny without cross-fitting", 0), (2.1, "tiny", None)):
        budget = f"model.budget={share * seconds / 60}"
        made, _, _ = prepared(budget)
        taken = made.base_models.decisions[0]
        assert (taken.chosen, made.recipe.train.folds) == (name, folds)
        assert ("cross-fitting would exceed it" in taken.because) is (folds == 0)
    made, _, _ = prepared(f"model.budget={1.9 * seconds / 60}", "train.folds=2")
    assert "without cross-fitting" not in made.base_models.decisions[0].chosen


def test_no_time_is_estimated_for_folds_that_the_run_does_not_have(
    prepared: Any, rows: Path, other: Path
) -> None:
    def folds(of: Any) -> set[int]:
        return {candidate.folds for candidate in of.base_models.candidates}

    assert folds(prepared()[0]) == {2}
    # Without test rows the default has none, nor has cross-validation.
    recipe = override(Recipe(), [f"data.path={rows}", "train.threads=1"])
    alone = override(recipe, ["data.split.test=0"])
    assert folds(row_use.learning_rows(alone, load_and_divide(alone)).prepared) == {0}
    procedure = CrossValidation(3)
    checked = procedure.checked_recipe(recipe)
    divided = load_and_divide(checked, scores_by_folds=True)
    assert folds(procedure.learn(divided.recipe, divided).learning.prepared) == {0}
    # Nor has a run with a class of too few rows for two in each fold.
    with rows.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([f"rare {place}", "rare"] for place in range(3))
    assert folds(prepared()[0]) == {0}


def test_a_named_model_that_is_broken_is_refused_and_one_of_the_cache_is_left_out(
    prepared: Any, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read") as error:
        prepared()
    assert error.value.remedy.endswith("It is listed in HOLDFAST_MODELS.")
    with pytest.raises(ModelError, match="tiny"):
        prepared(f"model.candidates=[{other}]")
    with pytest.raises(ModelError, match="neither a folder nor a model in the Hugging Face cache"):
        prepared("model.candidates=[nowhere/at-all]")
    with pytest.raises(RecipeError, match="text or token classification"):
        prepared("model.name=embedded", "model.budget=5")
    cached = [LocalModel("embedded"), LocalModel(str(other))]
    monkeypatch.setattr(base_model, "local_encoders", lambda _: (cached, []))
    made, _, _ = prepared()
    assert made.recipe.model.name == "embedded"
    assert [d.chosen for d in made.base_models.decisions[1:]] == ["not compared"]


def test_a_model_whose_features_overflow_is_no_candidate(
    prepared: Any, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_file(other / "model.safetensors")
    (last,) = (name for name in weights if name.endswith("layer.1.output.LayerNorm.weight"))
    save_file({**weights, last: 1e38 * weights[last]}, other / "model.safetensors")
    with pytest.raises(ModelError, match="computes features that are not finite"):
        prepared()
    cached = [LocalModel("embedded"), LocalModel(str(other))]
    monkeypatch.setattr(base_model, "local_encoders", lambda _: (cached, []))
    made, _, _ = prepared()
    assert made.recipe.model.name == "embedded"
    (skipped,) = (one for one in made.base_models.decisions if one.chosen == "not compared")
    assert "not finite numbers" in skipped.because


def test_what_cannot_be_chosen_is_refused_before_the_rows_are_read(
    rows: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = override(Recipe(), [f"data.path={rows}", "task=text-classification"])
    rows.write_text("no columns", "utf-8")
    with pytest.raises(ModelError, match="nowhere"):
        load_and_divide(recipe.with_changes(model={"candidates": ["nowhere"]}))
    with pytest.raises(RecipeError, match="pins a model of the hub"):
        load_and_divide(recipe.with_changes(model={"revision": "abc"}))
    monkeypatch.setenv("HOLDFAST_MODELS", "/nowhere")
    with pytest.raises(ModelError, match="HOLDFAST_MODELS"):
        load_and_divide(recipe)
    with pytest.raises(DataError):
        load_and_divide(recipe.with_changes(model={"name": "embedded"}))


def test_several_processes_take_the_embedded_model_and_say_so(
    rows: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "process_count", lambda: 2)
    recipe = override(Recipe(), [f"data.path={rows}", "task=text-classification"])
    taken = []

    def prepare_with(recipe: Recipe) -> Any:
        taken.append(recipe.model.name)
        return recipe

    with record_decisions() as log:
        base_model.prepare_best(recipe, prepare_with, np.arange(80))
    assert taken == ["embedded"]
    (said,) = decisions_and_findings(log)[0]
    assert (said.what, said.chosen, said.prominent) == ("base model", "embedded", True)


def test_models_of_the_hub_are_compared_only_where_the_user_asks(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "detect_language", lambda _: "en")
    assert prepared()[0].base_models is None
    # The tests run without a network.
    made, _, _ = prepared("model.download=true")
    names = [one.what for one in made.base_models.decisions if one.chosen == "not compared"]
    assert names == [f"base model BAAI/bge-{size}-en-v1.5" for size in ("base", "small")]
    assert made.recipe.model.name == "embedded"
    # Where the list has none for the rows, it is not offered again.
    monkeypatch.setattr(base_model, "hub_models", lambda *_: ())
    with record_decisions() as told:
        prepared("model.download=true")
    (hint,) = (one for one in told if isinstance(one, Decision) and one.what == "base model")
    assert "--download" not in hint.because


def test_a_hub_model_that_is_not_wholly_there_is_downloaded_and_not_called_left_out(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = hub_models("text-classification", "en")[0].name
    found = [LocalModel("embedded")], [SkippedModel(name, "is incomplete in the cache")]
    monkeypatch.setattr(base_model, "local_encoders", lambda _: found)
    monkeypatch.setattr(base_model, "detect_language", lambda _: "en")
    made, _, _ = prepared("model.download=true")
    reasons = [
        one.because for one in made.base_models.decisions if one.what.endswith("bge-base-en-v1.5")
    ]
    assert len(reasons) == 1
    assert "incomplete" not in reasons[0]


def test_a_model_for_another_language_is_not_expected_to_be_better(
    prepared: Any, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "EMBEDDED_PARAMETERS", 0)
    monkeypatch.setattr(base_model, "detect_language", lambda _: "de")
    (other / "modules.json").write_text("[]", "utf-8")
    priors = {}
    for language in ("de", "fr"):
        (other / "README.md").write_text(f"---\nlanguage: {language}\n---\n", "utf-8")
        priors[language] = prepared()[0].base_models.candidates[1].prior
    assert priors["de"] == base_model.SENTENCES
    assert priors["fr"].advantage == 0
    assert priors["fr"].source == "its card lists fr, but the rows are in de"


def test_the_list_of_the_hubs_models_is_that_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "choose.md").read_text("utf-8")
    for one in HUB_MODELS:
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{one.name}` |"))
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[4:7] == [f"{one.millions} M", one.licence, f"{one.max_length} tokens"]
        assert cells[7].startswith(f"{one.score:.1f} %")


def test_the_hubs_models_are_those_for_the_task_and_the_language() -> None:
    def names(task: str, language: str | None) -> set[str]:
        return {one.name.partition("/")[2] for one in hub_models(task, language)}

    assert names("text-classification", "en") == {"bge-base-en-v1.5", "bge-small-en-v1.5"}
    assert names("text-classification", "zh") == {"bge-base-zh-v1.5"}
    for language in ("de", None):
        assert names("text-classification", language) == {"multilingual-e5-base"}
    assert names("token-classification", "en") == {"bert-base-cased"}
    assert names("token-classification", "de") == names("causal-lm", "en") == set()


def test_a_run_keeps_its_choice_and_repeats_it_without_choosing(
    rows: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["train.max_steps=4", "train.evaluations=1", "methods.contrast=false"]
    settings += ["model.budget=5", f"model.candidates=[{other}]"]
    recipe = override(Recipe(), [f"data.path={rows}", *settings])
    result = train(recipe, tmp_path / "run")
    stored = read_recipe(tmp_path / "run" / "recipe.yaml")
    assert stored.model.name == str(other)
    assert result["settings"]["model"]["name"] == str(other)
    assert any(one["what"] == "base model" for one in result["decisions"])
    assert result["model_facts"]["sha256"] == file_sha256(other / "model.safetensors")
    monkeypatch.delenv("HOLDFAST_MODELS")
    again = train(stored, tmp_path / "again")
    assert again["test"]["metrics"] == result["test"]["metrics"]
    assert not any(one["what"] == "base model" for one in again["decisions"])


@pytest.fixture
def chosen_by(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The rows that each choice was made by."""
    asked: list[set[int]] = []
    choose = BaseModels.choose

    def watched(self: BaseModels, train_rows: Any, *gains: Any) -> Any:
        asked.append(set(train_rows.tolist()))
        return choose(self, train_rows, *gains)

    monkeypatch.setattr(BaseModels, "choose", watched)
    return asked


QUICK = ["train.max_steps=2", "train.evaluations=1", "methods.contrast=false"]


def test_cross_validation_chooses_in_each_fold_by_its_training_rows(
    rows: Path, other: Path, tmp_path: Path, chosen_by: list[set[int]]
) -> None:
    recipe = override(Recipe(), [f"data.path={rows}", *QUICK])
    train(recipe, tmp_path / "run", procedure=CrossValidation(3))
    everything, *folds = chosen_by
    assert len(everything) == 80
    assert len(folds) == 3
    held_out = [everything - one for one in folds]
    # What validates a fold is not learned from either, and comes from the next one.
    assert all(26 < len(one) < 54 for one in held_out)
    assert set.intersection(*held_out) == set()
    assert set.union(*held_out) == everything


@pytest.mark.slow
def test_outer_folds_choose_by_their_training_rows_and_a_resumed_run_takes_the_same_models(
    rows: Path,
    other: Path,
    tmp_path: Path,
    chosen_by: list[set[int]],
    monkeypatch: Any,
    killed: type[BaseException],
) -> None:
    choose = BaseModels.choose

    def embedded_later(self: BaseModels, train_rows: Any, *gains: Any) -> Any:
        choice = choose(self, train_rows, *gains)
        settings = {"model": {"name": "embedded", "revision": None, "freeze": None}}
        return choice if len(chosen_by) == 1 else replace(choice, settings=settings)

    monkeypatch.setattr(BaseModels, "choose", embedded_later)
    monkeypatch.setattr(row_use, "FOLDS", 2)
    recipe = override(Recipe(), [f"data.path={rows}", "data.split.test=0", *QUICK])
    result = train(recipe, tmp_path / "run")
    assert result["model"] == str(other)
    _, first, second = chosen_by
    assert first & second == set()
    assert len(first | second) == 80
    # The embedded model reads no case.
    assert result["test"]["metrics"]["accuracy"]["value"] < 0.75
    chosen_by.clear()
    kill = KillAt("step_done", 1, killed)
    with pytest.raises(killed):
        train(recipe, tmp_path / "killed", listeners=(kill,), checkpoint_every_s=0.0)
    resumed = train(Recipe(), tmp_path / "killed", resume=True)
    assert len(chosen_by) == 3
    assert same_scores(resumed, result)


def posterior(mean: float, error: float, prior_mean: float, spread: float) -> tuple[float, float]:
    """Mean and standard deviation of a normal posterior, by numerical integration."""

    def density(value: float, power: int) -> float:
        return (
            float(norm.pdf(mean, value, error) * norm.pdf(value, prior_mean, spread)) * value**power
        )

    edges = sorted((mean, prior_mean))
    mass, first, second = (quad(density, -1, 1, args=(k,), points=edges)[0] for k in range(3))
    return first / mass, (second / mass - (first / mass) ** 2) ** 0.5


def test_the_expected_advantage_is_the_mean_of_the_posterior() -> None:
    rng = np.random.default_rng(0)
    differences = rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.8, 0.15], size=200)
    found = expected_advantage(differences, np.arange(200), Prior(0.05, 0.04, ""))
    error = differences.std(ddof=1) / np.sqrt(200)
    mean, deviation = posterior(differences.mean(), error, 0.05, 0.04)
    assert found.mean == pytest.approx(mean, abs=1e-4)
    assert found.deviation == pytest.approx(deviation, abs=1e-4)


def test_rows_of_one_unit_count_once_and_rows_that_agree_prove_little() -> None:
    prior = Prior(0.0, 0.1, "")
    differences = np.tile([1.0, 0.0, 0.0, -1.0], 10)
    alone = expected_advantage(differences, np.arange(40), prior)
    doubled = expected_advantage(np.repeat(differences, 5), np.repeat(np.arange(40), 5), prior)
    assert doubled.deviation == pytest.approx(alone.deviation)
    agree = expected_advantage(np.zeros(10), np.arange(10), prior)
    assert agree.deviation > 0.05
    unread = expected_advantage(np.full(3, np.nan), np.arange(3), Prior(0.05, 0.1, ""))
    assert (unread.mean, unread.deviation) == (0.05, 0.1)


@pytest.fixture
def opinions(tmp_path: Path) -> Path:
    """80 rows of words that the embedded model tells apart, and the tiny one does not know."""
    draw = random.Random(1)
    words = {"good": ("great", "lovely", "superb"), "bad": ("awful", "boring", "horrible")}
    path = tmp_path / "opinions.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        for place in range(80):
            label = ("good", "bad")[place % 2]
            out.writerow(
                [f"{' '.join(draw.choices(WORDS, k=4))} {draw.choice(words[label])}", label]
            )
    return path


FOLDED = [
    "model.freeze=none",
    "train.folds=2",
    "train.max_steps=6",
    "train.evaluations=2",
    "methods.contrast=false",
    "train.threads=1",
    "train.matmul=default",
]


def same_scores(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = ("valid", "verdict", "best_step")
    return one["test"]["metrics"] == other["test"]["metrics"] and all(
        one[name] == other[name] for name in names
    )


@pytest.mark.slow
def test_a_run_from_the_embedded_model_goes_on_from_the_folds_that_chose_it(
    opinions: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = override(Recipe(), [f"data.path={opinions}", *FOLDED])
    alone = train(recipe.with_changes(model={"name": "embedded"}), tmp_path / "alone")
    answered: list[int] = []
    answer = cross_fitting._answer_fold

    def watched(prepared: Any, extend: Any, rows: Any, fold: Any, *rest: Any) -> Any:
        answered.append(fold.number)
        return answer(prepared, extend, rows, fold, *rest)

    monkeypatch.setattr(cross_fitting, "_answer_fold", watched)
    chosen = train(recipe, tmp_path / "chosen")
    assert answered == [0, 1]
    (reason,) = (one for one in chosen["decisions"] if one["what"] == "base model")
    assert reason["chosen"] == "embedded"
    assert same_scores(chosen, alone)

    # The gain that the reason states, from the run's own journal of its evaluations.
    looks = np.load(tmp_path / "alone" / "looks.npz")
    right = looks["look_valid_correct"].astype(float)
    gains, rows = right[-1] - right[0], right.shape[1]
    error = max(1 / (rows + 2), gains.std(ddof=1) / rows**0.5)
    usual = base_model.tuning_gain(rows, True) + base_model.FOLDS_GAIN
    mean, _ = posterior(gains.mean(), error, usual, base_model.GAIN_SPREAD)
    assert (
        f"expected gain of fine-tuning over its linear probe {100 * mean:+.1f} points"
        in reason["because"]
    )


@pytest.mark.slow
def test_another_model_is_trained_from_its_own_folds(
    rows: Path, other: Path, tmp_path: Path
) -> None:
    recipe = override(Recipe(), [f"data.path={rows}", *FOLDED])
    chosen = train(recipe, tmp_path / "chosen")
    assert chosen["model"] == str(other)
    (embedded,) = (x for x in chosen["decisions"] if x["what"] == "base model embedded")
    assert "from out-of-fold predictions and other data sets" in embedded["because"]
    named = train(recipe.with_changes(model={"name": str(other)}), tmp_path / "named")
    assert same_scores(chosen, named)


def test_what_the_embedded_model_gains_decides_with_the_probes(prepared: Any, other: Path) -> None:
    models, everything = prepared("train.folds=2")[0].base_models, np.arange(56)
    ahead = models.choose(everything)
    assert "tiny" in ahead.decisions[0].chosen
    for gain, name in ((0.9, "embedded"), (-0.9, "tiny")):
        chosen = models.choose(everything, np.full(56, gain)).decisions[0].chosen
        assert chosen.startswith(name)


def test_rows_that_are_not_independent_count_once_in_the_gain(prepared: Any, other: Path) -> None:
    embedded, train_rows, _ = prepared("model.name=embedded", "train.folds=2")
    models = prepared("train.folds=2")[0].base_models
    gains = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.05, 0.6, 0.35], size=40)
    # Each of the rows with its copy, except the last ones.
    count = len(embedded)
    copied = np.resize(gains, count - count // 2).repeat(2)[:count]
    units = np.arange(count) // 2
    rows = replace(embedded, recipe=models.recipe, units=units)
    made = models.prepared(rows, lambda _: rows, train_rows, copied)
    (reason,) = (
        one.because for one in made.base_models.decisions if "gain of fine-tuning" in one.because
    )
    once = copied[::2]
    usual = base_model.tuning_gain(len(once), True) + base_model.FOLDS_GAIN
    error = once.std(ddof=1) / len(once) ** 0.5
    mean, deviation = posterior(once.mean(), error, usual, base_model.GAIN_SPREAD)
    low, high = (100 * (mean + side * 1.959964 * deviation) for side in (-1, 1))
    assert f"{100 * mean:+.1f} points (95 % credible interval {low:+.1f} to {high:+.1f})" in reason


def test_training_is_expected_to_remove_at_most_half_of_a_probes_errors(
    prepared: Any, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "FOLDS_GAIN", 0.0)
    monkeypatch.setattr(base_model, "TUNING_GAINS", {math.inf: (0.0, 0.9)})
    models = prepared("model.freeze=none", "train.folds=0")[0].base_models
    tiny, embedded = models.choose(np.arange(56)).decisions
    (probe,) = re.findall(r"linear probe: accuracy (\d+\.\d) % out of fold", embedded.because)
    (ahead,) = re.findall(r"over embedded's linear probe ([+-]\d+\.\d) points", tiny.because)
    (behind,) = re.findall(r"after training −(\d+\.\d) points relative", embedded.because)
    wrong = 100 - float(probe) - float(ahead)
    assert float(behind) == pytest.approx(float(ahead) + wrong / 2, abs=0.2)


def test_folds_that_were_run_are_not_left_out(
    prepared: Any, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "FOLDS_GAIN", 0.0)
    models, everything = prepared()[0].base_models, np.arange(56)
    alone = replace(models, candidates=models.candidates[:1])
    taken = alone.choose(everything).decisions[0]
    assert taken.chosen == "embedded without cross-fitting"
    assert "cross-fitting takes longer and is not expected to improve it" in taken.because
    assert alone.choose(everything, np.full(56, 0.1)).decisions[0].chosen == "embedded"


def test_a_run_that_is_stopped_in_the_folds_that_choose_leaves_nothing(
    rows: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: object) -> None:
        raise Interrupted("the fit", "was interrupted at step 1")

    monkeypatch.setattr(cross_fitting, "train", stopped)
    recipe = override(Recipe(), [f"data.path={rows}", *FOLDED])
    with pytest.raises(Interrupted, match="interrupted before anything was written"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_trains_nothing_and_says_that_its_choice_may_change(
    rows: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: object) -> None:
        raise AssertionError("a fold was run")

    monkeypatch.setattr(cross_fitting, "_answer_fold", trained)
    plan = preview(override(Recipe(), [f"data.path={rows}", *FOLDED]))
    assert [one["chosen"] for one in plan["decisions"] if one["what"] == "base model"] == [
        "tiny",
        "may change",
    ]


@pytest.mark.slow
def test_a_resumed_run_repeats_neither_the_choice_nor_the_folds_that_made_it(
    opinions: Path,
    other: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed: type[BaseException],
) -> None:
    recipe = override(Recipe(), [f"data.path={opinions}", *FOLDED])
    whole = train(recipe, tmp_path / "whole")
    kill = KillAt("step_done", 3, killed)
    with pytest.raises(killed):
        train(recipe, tmp_path / "run", listeners=(kill,), checkpoint_every_s=0.0)

    def repeated(*_: object) -> None:
        raise AssertionError("a fold was run, or a model chosen, again")

    monkeypatch.setattr(cross_fitting, "_answer_fold", repeated)
    monkeypatch.setattr(BaseModels, "choose", repeated)
    assert same_scores(train(Recipe(), tmp_path / "run", resume=True), whole)
