"""Shared parts of text classification whose labels are not classes: several labels, or a number."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import (
    FittedModel,
    ScoringRequest,
    ScoringResult,
    SplitRows,
    TrainingPlan,
    plain_facts,
)
from holdfast.contract.inference import LabelSetPredictions, NumberPredictions
from holdfast.contract.predictions import groups_of
from holdfast.contract.result import baseline_block, brief
from holdfast.contract.run_folder import MODEL
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.metric_names import higher_is_better
from holdfast.core.records import Decision, Floats, Ints, Scores
from holdfast.data.table import Table
from holdfast.methods.closed_form import HeadRefit
from holdfast.metrics import Metric
from holdfast.metrics import find_metric as find_class_metric
from holdfast.models.compute.processor import use_onednn
from holdfast.models.encoders.checkpoint import SavedClassifier, load_saved
from holdfast.models.encoders.classifier import LoadedClassifier
from holdfast.models.layers import count_parameters
from holdfast.models.probes.probe import ExtraRows, Probe
from holdfast.plan.defaults import model_size
from holdfast.recipe import Recipe
from holdfast.tasks.classes.classifier import probe_network, texts_of
from holdfast.tasks.classes.encoding import EncodedTexts, TextModel, run_texts
from holdfast.tasks.ensemble import Weights, same_names
from holdfast.tasks.labels import losses as label_sets
from holdfast.tasks.number import losses as numbers
from holdfast.tasks.number.losses import Scale
from holdfast.training.task import Examples, TrainingTask, labels_of

if TYPE_CHECKING:
    import torch


PROBE = "linear probe"
WATCHED = {"several": label_sets.WATCHED, "number": numbers.WATCHED}


@dataclass(frozen=True)
class LoadedText(LoadedClassifier):
    """A loaded model and the unit of its numbers."""

    scale: Scale = field(default_factory=Scale)


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """Rows, their labels (in the form that the loop learns) and the network's output for them."""

    rows: Ints
    labels: npt.NDArray[Any]
    raw: Floats
    groups: npt.NDArray[Any] | None = None


class LabelType(Protocol):
    """What differs between several labels and a number; its outputs are made for scoring."""

    label_kind: str
    problem_type: str
    baseline_name: str

    def output_names(self, table: Table) -> tuple[str, ...]:
        """The names of the network's outputs."""

    def scale(self, table: Table) -> Scale:
        """The unit of the training rows."""

    def labels(self, table: Table, scale: Scale) -> npt.NDArray[Any]:
        """Labels as the loop learns them, [n] or [n, outputs]."""

    def training_task(self, loaded: LoadedText, table: Table, recipe: Recipe) -> TrainingTask: ...

    def fit_probe(self, features: Floats, labels: Floats, seed: int) -> Probe: ...

    def save(self, folder: Path, fitted: FittedModel) -> None: ...

    def from_saved(self, raw: Floats, scale: Scale) -> Floats:
        """The saved model's output in the loop's unit."""

    def constant_outputs(self, labels: Floats, n: int) -> Floats:
        """The output of the constant baseline for n rows, from the training labels only."""

    def score_inputs(self, answers: RawOutputs, recipe: Recipe, scale: Scale) -> Any: ...

    def score(self, outputs: Any, names: tuple[str, ...]) -> Scores: ...

    def compare(self, first: Any, second: Any) -> dict[str, Any]: ...

    def hardest(self, outputs: Any, texts: list[str], names: tuple[str, ...]) -> dict[str, Any]: ...

    def predictions(self, outputs: Any, names: tuple[str, ...]) -> dict[str, Any]: ...

    def decisions(self, scale: Scale) -> tuple[Decision, ...]: ...


def loaded_for(recipe: Recipe, loaded: LoadedClassifier) -> LoadedText:
    """The loaded model with the unit of its numbers and the defaults for such a model."""
    total, _ = count_parameters(loaded.network)
    # As for classes: an encoder's word embeddings stay pretrained, unless an adapter freezes more.
    words = recipe.model.freeze is None and recipe.model.adapter.method is None
    return LoadedText(
        loaded.network,
        loaded.tokenizer,
        loaded.max_length,
        loaded.decisions,
        loaded.facts,
        settings={**loaded.settings, "freeze": "words"} if words else loaded.settings,
        defaults=f"{model_size(total)} encoder",
    )


def fit_loaded(loaded: LoadedText, rows: Table, label_type: LabelType) -> LoadedText:
    """The model with the unit of a fit's training rows."""
    scale = label_type.scale(rows)
    return replace(loaded, scale=scale, decisions=(*loaded.decisions, *label_type.decisions(scale)))


def in_unit(examples: EncodedTexts, loaded: LoadedText) -> EncodedTexts:
    """Labels as the loop learns them."""
    return replace(examples, labels=loaded.scale.inside(examples.labels).astype(np.float32))


def refuse(recipe: Recipe, label_type: LabelType) -> None:
    """Refuse settings that do not apply here."""
    given: dict[str, Any] = {"train.label_smoothing": recipe.train.label_smoothing}
    if label_type.label_kind != "number":
        given["train.huber"] = recipe.train.huber
    for key, value in given.items():
        if value:
            rule = f"is not available where data.label_kind is {label_type.label_kind}"
            raise RecipeError(key, rule, value, "Leave it out.")


def find_metric(name: str) -> Metric:
    """Find a metric of text classification, whatever the labels are."""
    for watched in WATCHED.values():
        if name in watched and not name.startswith("f1_macro"):
            higher = higher_is_better(name)
            return Metric(name, higher, 0.0, float("inf"), lambda outputs, classes: None)
    return find_class_metric(name)


def check_metric(metric: Metric | None, label_kind: str) -> None:
    """Refuse a metric of another label type."""
    if metric is None:
        return
    others = {name for watched in WATCHED.values() for name in watched} - {"f1_macro"}
    fits = (
        metric.name in WATCHED[label_kind] if label_kind in WATCHED else metric.name not in others
    )
    if not fits:
        known = list(WATCHED.get(label_kind, ("accuracy", "f1_macro")))
        raise RecipeError(
            "train.metric",
            f"is not available where data.label_kind is {label_kind}",
            metric.name,
            suggest_name(metric.name, ["loss", "refined_loss", *known]),
        )


def listeners(training_plan: TrainingPlan, label_type: LabelType) -> tuple[HeadRefit, ...]:
    """The head fitted to the pretrained features: the baseline, and the initial head."""
    seed = training_plan.recipe.seed
    first = bool(training_plan.recipe.methods["probe_first"])

    def fit(features: Floats, labels: Floats, extra_rows: ExtraRows | None = None) -> Probe:
        if extra_rows is not None:
            # A teacher's predictions for unlabelled rows; each counts as a row of the table.
            features = np.concatenate([features, extra_rows.features])
            labels = np.concatenate([labels, extra_rows.labels])
        return label_type.fit_probe(features, labels, seed)

    return (HeadRefit(fit, first=first),)


def predict_rows(
    label_type: LabelType, saved: SavedClassifier, table: Table, scale: Scale
) -> RawOutputs:
    """The saved model's outputs in the form of the loop; labels are zeros where none are given."""
    outputs = len(saved.classes)
    examples, raw = run_texts(saved.network, saved.tokenizer, saved.max_length, outputs, table)
    known = {"labels", "value"} & set(table.rows.column_names)
    labels = label_type.labels(table, scale) if known else np.zeros(raw.shape)
    return RawOutputs(examples.rows, labels, label_type.from_saved(raw, scale), groups_of(table))


def loaded_text(training_plan: TrainingPlan) -> LoadedText:
    """The loaded model of a label type that is not a class."""
    assert isinstance(training_plan.loaded, LoadedText)
    return training_plan.loaded


def score_rows(request: ScoringRequest, label_type: LabelType) -> ScoringResult:
    """Score the saved folder, reloaded in plain Transformers, and the baselines that were fitted on
    training rows.
    """
    start = time.perf_counter()
    training_plan, table = request.training_plan, request.table
    names, scale = training_plan.task.classes, loaded_text(training_plan).scale
    saved = load_saved(request.run / MODEL, min_classes=1)
    if training_plan.recipe.train.matmul == "onednn":
        use_onednn(saved.network)
    outputs = label_type.score_inputs(
        predict_rows(label_type, saved, table, scale), training_plan.recipe, scale
    )
    test = label_type.score(outputs, names)
    score_s = time.perf_counter() - start
    others = _other_rows(request, label_type)
    baseline, baseline_decision = _baseline(request, label_type, outputs)
    blocks = {
        "problem": label_type.problem_type,
        "classes": list(names) if label_type.label_kind == "several" else None,
        "test": {**test.to_json(), "opened_at": request.opened_at},
        **others,
        "baseline": baseline,
        "hardest": label_type.hardest(outputs, texts_of(table), names),
        "model_facts": facts(request.fitted),
        "careless": None,
    }
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    return ScoringResult(
        blocks, (baseline_decision,), seconds, predictions=label_type.predictions(outputs, names)
    )


def _other_rows(request: ScoringRequest, label_type: LabelType) -> dict[str, Any]:
    """``valid`` and ``train_probe``: scores of the restored best checkpoint, in the training
    precision.
    """
    training_plan = request.training_plan

    def block(examples: Examples, positions: Ints, table: Table) -> dict[str, Any]:
        _, raw = request.fitted.measure(examples, positions)
        labels, groups = labels_of(examples)[positions], groups_of(table.take(positions))
        raw_outputs = RawOutputs(examples.rows[positions], labels, raw, groups)
        outputs = label_type.score_inputs(
            raw_outputs, training_plan.recipe, loaded_text(training_plan).scale
        )
        return label_type.score(outputs, training_plan.task.classes).to_json()

    everything, splits = np.arange(len(training_plan.valid)), training_plan.splits
    return {
        "valid": block(training_plan.valid, everything, splits.valid_rows.table),
        "train_probe": block(training_plan.train, training_plan.probe, splits.train_rows.table),
    }


def prediction_columns(split_rows: SplitRows, label_type: LabelType) -> dict[str, Any]:
    """Predictions of the best checkpoint for training or validation rows."""
    training_plan, examples, table = (
        split_rows.fitted.training_plan,
        split_rows.examples,
        split_rows.table,
    )
    _, raw = split_rows.measure()
    labels, scale = labels_of(examples), loaded_text(training_plan).scale
    if np.array_equal(examples.rows, table.column("row")):
        # Labels as the source has them: those that are learned from have the digits of float32.
        labels = label_type.labels(table, scale)
    raw_outputs = RawOutputs(examples.rows, labels, raw)
    outputs = label_type.score_inputs(raw_outputs, training_plan.recipe, scale)
    return label_type.predictions(outputs, training_plan.task.classes)


def _baseline(
    request: ScoringRequest, label_type: LabelType, outputs: Any
) -> tuple[dict[str, Any], Decision]:
    """Score the linear probe and the constant baseline; the one with the smaller validation loss is
    the baseline.
    """
    training_plan, names = request.training_plan, request.training_plan.task.classes
    network = probe_network(request)
    baselines = {
        split: _two(label_type, training_plan, table, network)
        for split, table in (
            ("test", request.table),
            ("valid", training_plan.splits.valid_rows.table),
        )
    }
    losses = {name: float(np.mean(baselines["valid"][name].losses)) for name in baselines["valid"]}
    selected = min(losses, key=lambda name: losses[name])
    tests = {name: brief(label_type.score(one, names)) for name, one in baselines["test"].items()}
    because = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    block = baseline_block(tests, selected, label_type.compare(outputs, baselines["test"][PROBE]))
    return block, Decision("baseline", selected, f"smallest validation loss: {because}")


def _two(
    label_type: LabelType,
    training_plan: TrainingPlan,
    table: Table,
    network: Callable[..., torch.Tensor],
) -> dict[str, Any]:
    loaded = loaded_text(training_plan)
    scale, outputs = loaded.scale, len(training_plan.task.classes)
    examples, raw = run_texts(network, loaded.tokenizer, loaded.max_length, outputs, table)
    labels, groups = label_type.labels(table, scale), groups_of(table)
    probe = RawOutputs(examples.rows, labels, raw, groups)
    plain = replace(
        probe, raw=label_type.constant_outputs(labels_of(training_plan.train), len(table))
    )
    return {
        label_type.baseline_name: label_type.score_inputs(plain, training_plan.recipe, scale),
        PROBE: label_type.score_inputs(probe, training_plan.recipe, scale),
    }


def facts(fitted: FittedModel) -> dict[str, Any]:
    """``model_facts`` of a model whose labels are not classes: with the unit of its numbers."""
    model_facts, scale = plain_facts(fitted, {}), loaded_text(fitted.training_plan).scale
    # Its outputs are never divided by a temperature.
    model_facts.pop("temperature")
    return {**model_facts, "target_mean": scale.mean, "target_std": scale.std}


def answers(
    models: Sequence[TextModel], table: Table, *, sets: bool, weights: Weights = None
) -> LabelSetPredictions | NumberPredictions:
    """Predictions of one model, or the mean over several (by their ``weights``) of the labels'
    probabilities (``sets``) or of the numbers.

    Raises ``RecipeError`` when their labels differ; their order may.
    """
    names: tuple[str, ...] = ()
    outputs = []
    for one in models:
        names = names or one.classes
        if sets:
            same_names([one], names, "labels")
        _, raw = run_texts(one.network, one.tokenizer, one.max_length, len(one.classes), table)
        outputs.append(raw[:, [one.classes.index(name) for name in names]] if sets else raw)
    return answers_of(names, outputs, sets=sets, weights=weights)


def answers_of(
    names: tuple[str, ...], outputs: Sequence[Floats], *, sets: bool, weights: Weights = None
) -> LabelSetPredictions | NumberPredictions:
    """The joint predictions from the networks' outputs [n, names], one array per model."""
    wide = [raw.astype(np.float64) for raw in outputs]
    if not sets:
        return NumberPredictions(_mean([raw[:, :1] for raw in wide], weights))
    mean = _mean([1 / (1 + np.exp(-raw)) for raw in wide], weights)
    # The output of one model is scored as it is; of a mean of probabilities, their logits.
    return LabelSetPredictions(names, mean, outputs[0] if len(outputs) == 1 else _logits(mean))


def _mean(outputs: Sequence[Floats], weights: Weights) -> Floats:
    if weights is None:
        return np.asarray(sum(outputs) / len(outputs))
    return np.asarray(sum(w * one for w, one in zip(weights, outputs, strict=True)))


def _logits(probabilities: Floats) -> Floats:
    tiny = np.finfo(np.float64).tiny
    return np.asarray(
        np.log(np.maximum(probabilities, tiny)) - np.log(np.maximum(1 - probabilities, tiny))
    )


def scale_of(result: Mapping[str, Any]) -> Scale:
    """The unit of a finished run's numbers."""
    facts = result["model_facts"]
    return Scale(float(facts["target_mean"]), float(facts["target_std"]))
