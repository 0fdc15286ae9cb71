"""The text classification task: one class a text, several labels, or a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.extra_features import FOLDER, load_extra_features
from holdfast.contract.fit import (
    FittedModel,
    ScoringRequest,
    ScoringResult,
    SplitRows,
    TaskDefinition,
    TrainingPlan,
    plain_facts,
)
from holdfast.contract.run_folder import MODEL
from holdfast.core.errors import RecipeError
from holdfast.core.records import Finding, Outputs
from holdfast.data.columns.extra import AUTO, with_extra_columns
from holdfast.data.labels.texts import load_labelled
from holdfast.data.mix import with_sources
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.metrics import Metric
from holdfast.models.compute.processor import use_onednn
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import LoadedClassifier, load_classifier
from holdfast.models.encoders.network import SINGLE_LABEL
from holdfast.models.layers import count_parameters
from holdfast.plan.adapters import load_options
from holdfast.plan.defaults import SENTENCE_ENCODER, model_size
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks.classes import classifier as shared
from holdfast.tasks.classes.answers import (
    LABEL_TYPES,
    add_extra_features,
    label_kind_of,
    load_plain_model,
    use_fitted,
    use_runs,
)
from holdfast.tasks.classes.encoding import (
    EncodedTexts,
    TextClassification,
    answer,
    encode,
    forward,
)
from holdfast.tasks.classes.extra_features_selection import proposals, requested_columns
from holdfast.tasks.classes.row_weights import with_groups_to_weigh
from holdfast.tasks.labels import base as problems
from holdfast.tasks.labels.base import LabelType, LoadedText
from holdfast.tasks.number.losses import Scale
from holdfast.training.task import TrainingTask

if TYPE_CHECKING:
    import torch


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """Read the rows of a source; ``like`` another table, with its columns and labels."""
    table = _with_side(_read(source, data, like), source, data, like)
    if data.reweigh is not None and like is None:
        # The table with the groups by which its rows are weighed; rows that are scored have no
        # weights.
        if table.columns.label_kind != "class":
            rule = f"is not available where data.label_kind is {table.columns.label_kind}"
            raise RecipeError("data.reweigh", rule, data.reweigh, "Leave it out.")
        raw = read_source(source, data.encoding, data.config)
        table = with_groups_to_weigh(table, raw, str(data.reweigh))
    optional = like is not None
    return with_sources(table, source, data.source, data.row_options(), optional=optional)


def _with_side(table: Table, source: str, data: DataPart, like: Table | None) -> Table:
    """The table with the cells of the recipe's feature columns, or with findings that propose
    feature columns (``auto``).
    """
    requests = requested_columns(data.features)
    if not requests and data.features != (AUTO,):
        return table
    if table.columns.label_kind != "class":
        rule = f"is not available where data.label_kind is {table.columns.label_kind}"
        raise RecipeError("data.features", rule, None, "Leave it out: it needs one class a row.")
    raw = read_source(source, data.encoding, data.config)
    if not requests:
        findings = proposals(table, raw) if like is None else ()
        return replace(table, findings=(*table.findings, *findings))
    columns = table.columns
    used = tuple(filter(None, (*columns.text, columns.label, columns.group)))
    return with_extra_columns(table, raw, requests, used)


def _read(source: str, data: DataPart, like: Table | None) -> Table:
    if like is not None:
        columns = like.columns
        classes = like.classes if columns.label_kind == "class" else like.names
        options = data.row_options(
            text=None if data.template else columns.text,
            label=columns.label,
            label_kind=columns.label_kind,
            separator=columns.label_separator,
            classes=classes,
            like=like,
        )
        return load_labelled(source, options)
    rare_below = max(2, 3 - bool(data.test) - bool(data.valid))
    return load_labelled(source, data.row_options(rare=data.rare, rare_below=rare_below))


def label_type_of(label_kind: str | None) -> LabelType | None:
    """The label type of labels that are not classes; ``None`` for classes."""
    return LABEL_TYPES.get(label_kind or "class")


def load(recipe: Recipe, table: Table) -> LoadedClassifier:
    """Load the recipe's model with a new head for the table's classes, labels or number."""
    label_type, model = label_type_of(table.columns.label_kind), recipe.model
    loaded = load_classifier(
        model.name,
        label_type.output_names(table) if label_type else table.classes,
        load_options(recipe),
        pooling=model.pooling,
        problem=label_type.problem_type if label_type else SINGLE_LABEL,
    )
    if label_type:
        return problems.loaded_for(recipe, loaded)
    is_base = model_size(count_parameters(loaded.network)[0]) == "base"
    if is_base and loaded.encodes_sentences:
        return replace(loaded, defaults=SENTENCE_ENCODER)
    return loaded


def refuse(recipe: Recipe) -> None:
    """Refuse settings that do not apply to the label type (``data.label_kind``)."""
    label_type = label_type_of(recipe.data.label_kind)
    if label_type is not None:
        problems.refuse(recipe, label_type)
    elif recipe.train.huber:
        remedy = "Leave it out, or train a regression model: --set data.label_kind=number."
        raise RecipeError("train.huber", "does not apply to classes", recipe.train.huber, remedy)


def encode_rows(table: Table, loaded: LoadedClassifier, recipe: Recipe) -> EncodedTexts:
    label_type = label_type_of(table.columns.label_kind)
    if label_type is None or not isinstance(loaded, LoadedText):
        return encode(table, loaded.tokenizer, loaded.max_length)
    # In the user's unit; ``transform_examples`` turns them into that of a fit's training rows.
    labels = label_type.labels(table, Scale())
    return encode(table, loaded.tokenizer, loaded.max_length, labels)


def fit_loaded(loaded: LoadedClassifier, rows: Table, examples: EncodedTexts) -> LoadedClassifier:
    """The model with the unit of the training rows' numbers."""
    label_type = label_type_of(rows.columns.label_kind)
    if label_type is None or not isinstance(loaded, LoadedText):
        return loaded
    return problems.fit_loaded(loaded, rows, label_type)


def transform_examples(
    examples: EncodedTexts, loaded: LoadedClassifier, rows: Table
) -> EncodedTexts:
    """Rows with their labels as the loop learns them."""
    return problems.in_unit(examples, loaded) if isinstance(loaded, LoadedText) else examples


def make_task(
    loaded: LoadedClassifier, table: Table, recipe: Recipe, metric: Metric | None
) -> TrainingTask:
    label_kind = table.columns.label_kind or "class"
    problems.check_metric(metric, label_kind)
    label_type = label_type_of(label_kind)
    if label_type is not None and isinstance(loaded, LoadedText):
        return label_type.training_task(loaded, table, recipe)
    pad, classes = loaded.tokenizer.pad_token_id, table.classes
    return TextClassification(pad, classes, shared.watched(metric, classes))


def score_rows(request: ScoringRequest) -> ScoringResult:
    """Score the saved folder, reloaded in plain Transformers."""
    label_type = label_type_of(request.table.columns.label_kind)
    if label_type is not None:
        return problems.score_rows(request, label_type)

    features = request.fitted.extra_features
    layer = load_extra_features(request.run / FOLDER) if features and features.layer else None
    plain: list[Outputs] = []

    def reloaded(table: Table) -> Outputs:
        saved = load_saved(request.run / MODEL)
        if request.training_plan.recipe.train.matmul == "onednn":
            use_onednn(saved.network)
        plain.append(answer(saved, table))
        return (
            plain[0] if layer is None else add_extra_features(layer, plain[0], table, saved.classes)
        )

    scored = shared.score_classifier(request, reloaded, _forward)
    if layer is not None:
        assert scored.outputs is not None
        block = shared.part_block(request.training_plan, plain[0], scored.outputs)
        scored.blocks["plain_part"] = block
    return scored


def prediction_columns(split_rows: SplitRows) -> dict[str, Any]:
    """Predictions of the best checkpoint for training or validation rows."""
    label_type = label_type_of(label_kind_of(split_rows.fitted.training_plan))
    return (
        shared.tell(split_rows)
        if label_type is None
        else problems.prediction_columns(split_rows, label_type)
    )


def _forward(
    network: Callable[..., torch.Tensor], training_plan: TrainingPlan, table: Table
) -> Outputs:
    loaded = training_plan.loaded
    assert isinstance(loaded, LoadedClassifier)
    return forward(network, loaded.tokenizer, loaded.max_length, training_plan.task.classes, table)


def check_examples(
    examples: EncodedTexts, loaded: LoadedClassifier, split: str
) -> tuple[Finding, ...]:
    return shared.truncation(examples, loaded, split)


def listeners(training_plan: TrainingPlan) -> tuple[Any, ...]:
    """The listener that refits the head."""
    label_type = label_type_of(label_kind_of(training_plan))
    return (
        problems.listeners(training_plan, label_type)
        if label_type
        else shared.listeners(training_plan)
    )


def save(folder: Path, fitted: FittedModel) -> dict[str, Any]:
    """Write the plain model."""
    label_type = label_type_of(label_kind_of(fitted.training_plan))
    if label_type is None:
        return shared.save(folder, fitted)
    fitted.network.cpu()
    label_type.save(folder, fitted)
    return {}


def facts(fitted: FittedModel, saved: Mapping[str, object]) -> dict[str, Any]:
    """``model_facts`` where no test rows are scored."""
    label_type = label_type_of(label_kind_of(fitted.training_plan))
    return plain_facts(fitted, saved) if label_type is None else problems.facts(fitted)


DEFINITION = TaskDefinition(
    name="text-classification",
    read=read,
    load=load,
    encode=encode_rows,
    make_task=make_task,
    check_examples=check_examples,
    listeners=listeners,
    save=save,
    score=score_rows,
    prediction_columns=prediction_columns,
    load_plain_model=load_plain_model,
    use_runs=use_runs,
    use_fitted=use_fitted,
    find_metric=problems.find_metric,
    fit_loaded=fit_loaded,
    transform_examples=transform_examples,
    facts=facts,
    refuse=refuse,
)
