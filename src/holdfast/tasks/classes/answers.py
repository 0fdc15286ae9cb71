"""Predictions of finished text classifiers for other rows, and scores where labels are known.

The run says whether a text has one class, several labels or a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.extra_features import ExtraFeaturesLayer, saved_layer
from holdfast.contract.fit import FittedModel, TrainingPlan
from holdfast.contract.inference import (
    ClassPredictions,
    Data,
    InferenceOptions,
    LabelledRequest,
    LabelSetPredictions,
    NumberPredictions,
    PredictionRequest,
    PredictionType,
    Scorer,
    TaskPredictions,
    data_part,
    encoding_for,
    group_for,
    label_for,
    read_columns,
    read_prediction_rows,
    run_recipe,
    select_columns,
)
from holdfast.contract.predictions import groups_of
from holdfast.contract.run_folder import model_of, need_run, open_run
from holdfast.core.decisions import decisions_in, decisions_to, record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats, Ints, Outputs, Scores
from holdfast.data.columns.columns import choose_columns
from holdfast.data.columns.extra import ColumnRequest as SideColumn
from holdfast.data.columns.extra import check_extra_columns, with_extra_columns
from holdfast.data.labels.texts import load_labelled
from holdfast.data.load import rename_columns, unlabelled_table
from holdfast.data.options import RowOptions
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import LoadedClassifier
from holdfast.models.encoders.general import TextNetwork
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks import task_definition
from holdfast.tasks.classes import classifier as shared
from holdfast.tasks.classes.encoding import TextModel, answer, with_logits
from holdfast.tasks.ensemble import (
    EnsembleEvidence,
    SavedModels,
    SharedRows,
    members,
    same_names,
    stored_evidence,
)
from holdfast.tasks.labels import answers as several_labels
from holdfast.tasks.labels import base as problems
from holdfast.tasks.labels.base import LabelType, LoadedText, RawOutputs
from holdfast.tasks.lines import take_rows
from holdfast.tasks.number import answers as one_number
from holdfast.tasks.number.losses import Scale

if TYPE_CHECKING:
    import torch


LABEL_TYPES: dict[str, LabelType] = {
    one.label_kind: one for one in (several_labels.LABEL_TYPE, one_number.LABEL_TYPE)
}
LABEL_KINDS = {one.problem_type: one.label_kind for one in LABEL_TYPES.values()}
ANSWERED: dict[str, PredictionType] = {"class": "text", "several": "list", "number": "number"}


@dataclass(frozen=True)
class TextPredictor(SavedModels[TextModel]):
    """Text classifiers of one label type, averaged by their ``weights``.

    ``recipe`` (of the first model) says how rows are read, and with ``scale`` how outputs are
    scored.
    """

    label_kind: str
    recipe: Recipe
    scale: Scale

    @property
    def prediction_type(self) -> PredictionType:
        return ANSWERED[self.label_kind]

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.label_kind == "number" else self.models[0].classes

    def read_rows(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        found = self._read_texts(data, options)
        asked = self.extra_feature_columns()
        check_extra_columns(found.raw, asked)
        return replace(found, table=with_extra_columns(found.table, found.raw, asked))

    def extra_feature_columns(self) -> tuple[SideColumn, ...]:
        """The feature columns that any of the models reads."""
        layers = [one.layer for one in self.models if isinstance(one, TextWithExtraFeatures)]
        return tuple({a.name: a for layer in layers for a in layer.required_columns}.values())

    def _read_texts(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        part = self.recipe.data
        raw, decisions = read_prediction_rows(part, data, options)
        names = read_columns(part)
        if names is None:
            with record_decisions() as log:
                columns = choose_columns(raw, RowOptions(options.text, need_label=False))
            chosen = decisions_in(log)
            decisions = (*decisions, *(d for d in chosen if d.what != "label column"))
            return PredictionRequest(raw, unlabelled_table(raw, columns), decisions=decisions)
        view, text = select_columns(raw, names, options), None if part.template else names
        with decisions_to(None):
            asked = RowOptions(text, template=part.template, need_label=False)
            columns = choose_columns(view, asked)
        return PredictionRequest(raw, unlabelled_table(view, columns), decisions=decisions)

    def read_labelled_rows(self, data: str, options: InferenceOptions) -> LabelledRequest:
        part, text = self.recipe.data, options.text
        encoding, decisions = encoding_for(part, data, options)
        names = read_columns(part)
        group, dropped = group_for(part, data, encoding)
        reading = RowOptions(
            (part.text or text) if not part.template else None,
            label_for(part, options),
            group,
            part.template,
            encoding=encoding,
            label_kind=self.label_kind,
            separator=part.label_separator,
            classes=self.models[0].classes,
            labels=part.labels,
            view=partial(rename_columns, expected=names, given_names=text) if names else None,
        )
        table = load_labelled(data, reading)
        if asked := self.extra_feature_columns():
            raw = read_source(data, encoding, None)
            check_extra_columns(raw, asked)
            table = with_extra_columns(table, raw, asked)
        return LabelledRequest(table, (*decisions, *dropped))

    def predict(self, table: Table) -> TaskPredictions:
        return self._classes(table) if self.label_kind == "class" else self._other_labels(table)

    def scorer(self, table: Table) -> Scorer:
        if self.label_kind == "class":
            return shared.scorer(self._classes(table), task_definition(self.recipe.task).metrics)
        label_type, asked, scale = LABEL_TYPES[self.label_kind], self._labelled(table), self.scale

        def score_some(positions: Ints | None = None) -> Scores:
            outputs = label_type.score_inputs(take_rows(asked, positions), self.recipe, scale)
            return label_type.score(outputs, self.models[0].classes)

        return score_some

    def _classes(self, table: Table) -> ClassPredictions:
        return shared.class_answers(self.models, both_parts, table, self.weights)

    def _other_labels(self, table: Table) -> LabelSetPredictions | NumberPredictions:
        sets = self.label_kind == "several"
        return problems.answers(self.models, table, sets=sets, weights=self.weights)

    def _labelled(self, table: Table) -> RawOutputs:
        label_type, scale = LABEL_TYPES[self.label_kind], self.scale
        labels = label_type.labels(table, scale)
        raw = label_type.from_saved(self._other_labels(table).raw, scale)
        return RawOutputs(table.column("row"), labels, raw, groups_of(table))

    def row_losses(self, table: Table) -> Floats:
        if self.label_kind == "class":
            return self._classes(table).outputs.losses
        made = LABEL_TYPES[self.label_kind].score_inputs(
            self._labelled(table), self.recipe, self.scale
        )
        losses: Floats = made.losses
        return losses

    def evidence(self, rows: SharedRows) -> EnsembleEvidence:
        return stored_evidence(rows, self.label_kind)

    @staticmethod
    def plain_of(model: TextModel) -> Any:
        """The module of a saved text classifier.

        Raises ``RecipeError`` for a model with a layer over feature columns.
        """
        if isinstance(model, TextWithExtraFeatures):
            rule = (
                "cannot average the weights of runs with feature columns: each run "
                "has its own layer over them"
            )
            remedy = "Use predict.ensemble=stack or average."
            raise RecipeError("predict.ensemble=soup", rule, None, remedy)
        network: Any = model.network
        return network.model


@dataclass(frozen=True)
class TextWithExtraFeatures:
    """A text classifier with a layer over feature columns; it has the interface of its text
    part.
    """

    text: TextModel
    layer: ExtraFeaturesLayer

    @property
    def network(self) -> Callable[..., Any]:
        return self.text.network

    @property
    def tokenizer(self) -> Any:
        return self.text.tokenizer

    @property
    def classes(self) -> tuple[str, ...]:
        return self.text.classes

    @property
    def max_length(self) -> int:
        return self.text.max_length


def both_parts(model: TextModel, table: Table) -> Outputs:
    """A model's outputs from the text, and from the feature columns where it reads some."""
    outputs = answer(model, table)
    if not isinstance(model, TextWithExtraFeatures):
        return outputs
    return add_extra_features(model.layer, outputs, table, model.classes)


def add_extra_features(
    layer: ExtraFeaturesLayer, outputs: Outputs, table: Table, classes: tuple[str, ...]
) -> Outputs:
    """Add the logits from the rows' feature columns to the text part's outputs."""
    return with_logits(outputs, layer.add(outputs.logits, table, classes))


def _with_layer(run: Path, model: TextModel) -> TextModel:
    """The run's text part, with its layer over feature columns where it has one."""
    layer = saved_layer(run)
    return model if layer is None else TextWithExtraFeatures(model, layer)


def load_plain_model(run: Path) -> Any:
    """Load the model of a finished run."""
    return load_saved(model_of(run), 1).network.model


def use_runs(runs: Sequence[Path]) -> TextPredictor:
    """Predictor for one finished run, or for the average of several."""
    label_kind = shared_label_kind(runs)
    least = 2 if label_kind == "class" else 1
    models = members(runs, lambda run: _with_layer(run, load_saved(model_of(run), least)))
    if label_kind == "class":
        same_names(models, models[0].classes, "classes")
    scale = problems.scale_of(open_run(runs[0])) if label_kind == "number" else Scale()
    return TextPredictor(models, label_kind, run_recipe(runs[0]), scale)


def use_fitted(fitted: FittedModel) -> TextPredictor:
    """Predictor for a fit's best checkpoint, in the user's unit and calibrated as its saved folder
    would be.
    """
    ready, loaded, network = (
        fitted.training_plan,
        fitted.training_plan.loaded,
        fitted.network.cpu().eval(),
    )
    assert isinstance(loaded, LoadedClassifier)
    label_kind = label_kind_of(ready)
    scale = loaded.scale if isinstance(loaded, LoadedText) else Scale()
    calibrated: Callable[..., Any] = network
    if label_kind == "class":
        calibrated = shared.Tempered(network, shared.kept_temperature(fitted))
    elif label_kind == "number":
        calibrated = partial(_outside, network, scale)
    model: TextModel = FittedText(
        calibrated, loaded.tokenizer, ready.task.classes, loaded.max_length
    )
    if fitted.extra_features and fitted.extra_features.layer:
        model = TextWithExtraFeatures(model, fitted.extra_features.layer)
    return TextPredictor([model], label_kind, ready.recipe, scale)


@dataclass(frozen=True)
class FittedText:
    """A classifier that was not saved, as a ``TextModel``."""

    network: Callable[..., Any]
    tokenizer: Any
    classes: tuple[str, ...]
    max_length: int


def _outside(network: Callable[..., torch.Tensor], scale: Scale, **batch: torch.Tensor) -> Any:
    return network(**batch) * scale.std + scale.mean


def label_kind_of(ready: TrainingPlan) -> str:
    """The label type that a loaded network is made for: ``class``, ``several`` or ``number``."""
    network = ready.loaded.network
    assert isinstance(network, TextNetwork)
    return LABEL_KINDS.get(network.problem, "class")


def shared_label_kind(runs: Sequence[Path]) -> str:
    """The label type that all these runs learned.

    Raises ``RecipeError`` where they differ.
    """
    for run in runs:
        need_run(run)
    kinds = {data_part(run).label_kind or "class" for run in runs}
    shapes = {_shape(data_part(run)) for run in runs}
    for what, found in (("label type", kinds), ("number of columns, or template,", shapes)):
        if len(found) > 1:
            rule = f"can be averaged only where all have the same {what}"
            remedy = "Name runs that were trained in the same way."
            raise RecipeError("several runs", rule, sorted(found), remedy)
    return kinds.pop()


def _shape(part: DataPart) -> str:
    """How a run builds its texts: two runs whose files name the column differently are alike."""
    return part.template or f"{len(part.text or ('text',))} column(s)"
