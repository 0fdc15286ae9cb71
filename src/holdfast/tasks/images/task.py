"""The image classification task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.fit import (
    FittedModel,
    ScoringRequest,
    ScoringResult,
    TaskDefinition,
    TrainingPlan,
)
from holdfast.contract.inference import (
    ClassPredictions,
    Data,
    InferenceOptions,
    LabelledRequest,
    PredictionRequest,
    PredictionType,
    Scorer,
    data_part,
    encoding_for,
    group_for,
    label_for,
)
from holdfast.contract.run_folder import MODEL, model_of, need_run
from holdfast.core.decisions import decisions_to
from holdfast.core.records import Decision, Finding, Floats, Outputs
from holdfast.data.images.decode import thumbnail
from holdfast.data.images.folders import given_splits, list_images
from holdfast.data.images.table import (
    CLASS,
    image_name,
    images_at,
    load_images,
    raw_of_paths,
    rows_left_out,
)
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw, source_path
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.metrics import Metric
from holdfast.models.vision.vision import (
    LoadedVision,
    load_saved_vision,
    load_vision,
    use_channels_last,
)
from holdfast.plan.adapters import load_options
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks.classes import classifier as shared
from holdfast.tasks.ensemble import (
    EnsembleEvidence,
    SavedModels,
    SharedRows,
    members,
    same_names,
    stored_evidence,
)
from holdfast.tasks.images.losses import (
    EncodedImages,
    ImageClassification,
    VisionModel,
    answer_images,
    encode_images,
    forward_images,
)
from holdfast.training.machine.machine import device_type

if TYPE_CHECKING:
    import torch


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """Read the images of a source; ``like`` another table, with its classes."""
    if like is not None:
        columns, path = like.columns, like.columns.text[:1]
        return load_images(
            source, data.row_options(text=path, label=columns.label, classes=like.classes)
        )
    named = {name for name in ("test", "valid") if getattr(data, name)}
    given = len(named | {*given_splits(str(data.path))[0]})
    rare_below = max(2, 3 - given)
    options = data.row_options(text=_path(data), rare=data.rare, rare_below=rare_below)
    table = load_images(source, options)
    return replace(table, decisions=(*_what(source, table), *table.decisions))


def load(recipe: Recipe, table: Table) -> LoadedVision:
    """Load the recipe's model with a new head for the table's classes; on a CPU in the memory
    layout that is fast there.
    """
    loaded = load_vision(recipe.model.name, table.classes, load_options(recipe))
    layout = use_channels_last(loaded.network) if device_type() == "cpu" else None
    return replace(loaded, decisions=(*loaded.decisions, layout)) if layout else loaded


def encode_rows(table: Table, loaded: LoadedVision, recipe: Recipe) -> EncodedImages:
    return encode_images(table, loaded.tokenizer, loaded.channels)


def make_task(
    loaded: LoadedVision, table: Table, recipe: Recipe, metric: Metric | None
) -> ImageClassification:
    return ImageClassification(table.classes, shared.watched(metric, table.classes))


def check_examples(
    examples: EncodedImages, loaded: LoadedVision, split: str
) -> tuple[Finding, ...]:
    """Finding for images that are decoded again for every batch, which takes longer."""
    if examples.pixels.cached or not len(examples):
        return ()
    why = (
        "they are too many to keep decoded"
        if examples.pixels.affine
        else "the model's processor does more than resize, crop and normalise"
    )
    return (
        Finding(
            "decoded_each_time",
            "info",
            0.0,
            len(examples),
            (),
            f"the {split} images are decoded for every batch: {why}",
            "Free space in the temporary folder (TMPDIR), or make the files smaller.",
        ),
    )


def score_rows(request: ScoringRequest) -> ScoringResult:
    """Score the saved folder, reloaded in plain Transformers, and show the hardest rows."""
    saved = load_saved_vision(request.run / MODEL)
    scored = shared.score_classifier(request, lambda table: answer_images(saved, table), _forward)
    hardest = {
        name: [_shown(entry, request.table) for entry in entries]
        for name, entries in scored.blocks["hardest"].items()
    }
    return replace(scored, blocks={**scored.blocks, "hardest": hardest})


@dataclass(frozen=True)
class FittedVision:
    """An image classifier that was not saved."""

    network: Callable[..., Any]
    processor: Any
    classes: tuple[str, ...]
    channels: int


@dataclass(frozen=True)
class ImagePredictor(SavedModels[VisionModel]):
    """Image classifiers, averaged by their ``weights``.

    They predict classes for a folder or a table of images, or a list of paths, each with its
    ``path``. An image that cannot be read has no prediction, and ``because`` gives the reason.
    ``part`` is the first run's data settings.
    """

    part: DataPart
    prediction_type: PredictionType = "text"

    @property
    def names(self) -> tuple[str, ...]:
        return self.models[0].classes

    def read_rows(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        raw, table, decisions = self._read(data, options)
        because = dict.fromkeys(rows_left_out(table), "the image cannot be read")
        return PredictionRequest(raw, table, because, decisions)

    def _read(
        self, data: Data, options: InferenceOptions
    ) -> tuple[Raw, Table, tuple[Decision, ...]]:
        if not isinstance(data, str):
            paths = [str(path) for path in data]
            return raw_of_paths([os.path.relpath(path) for path in paths]), images_at(paths), ()
        encoding, decisions = encoding_for(self.part, data, options)
        path, links = _path(self.part, options), self.part.links
        reading = RowOptions(path, encoding=encoding, need_label=False, links=links)
        table, folder = load_images(data, reading), source_path(data)
        if folder.is_dir():
            with decisions_to(None):
                listed = list_images(folder, False, links, training=False)
            return raw_of_paths(listed.names), table, decisions
        return read_source(data, encoding, None), table, decisions

    def read_labelled_rows(self, data: str, options: InferenceOptions) -> LabelledRequest:
        part = self.part
        encoding, decisions = encoding_for(part, data, options)
        folder = source_path(data).is_dir()
        group, dropped = (part.group, ()) if folder else group_for(part, data, encoding)
        reading = RowOptions(
            _path(part, options),
            label_for(part, options),
            group,
            encoding=encoding,
            classes=self.names,
            labels=part.labels,
            links=part.links,
        )
        return LabelledRequest(load_images(data, reading), (*decisions, *dropped))

    def predict(self, table: Table) -> ClassPredictions:
        return shared.class_answers(self.models, answer_images, table, self.weights)

    def scorer(self, table: Table) -> Scorer:
        return shared.scorer(self.predict(table))

    def row_losses(self, table: Table) -> Floats:
        return self.predict(table).outputs.losses

    def evidence(self, rows: SharedRows) -> EnsembleEvidence:
        return stored_evidence(rows, "class")

    @staticmethod
    def plain_of(model: VisionModel) -> Any:
        """The module of a saved image classifier."""
        network: Any = model.network
        return network.model


def load_plain_model(run: Path) -> Any:
    """Load the model of a finished run."""
    return load_saved_vision(model_of(run)).network.model


def use_runs(runs: Sequence[Path]) -> ImagePredictor:
    """Predictor for one finished run, or for the average of several."""
    for run in runs:
        need_run(run)
    models = members(runs, lambda run: load_saved_vision(model_of(run)))
    same_names(models, models[0].classes, "classes")
    return ImagePredictor(models, data_part(runs[0]))


def use_fitted(fitted: FittedModel) -> ImagePredictor:
    """Predictor for a fit's best checkpoint, calibrated as its saved folder would be."""
    training_plan, loaded = fitted.training_plan, fitted.training_plan.loaded
    temperature = shared.kept_temperature(fitted)
    assert isinstance(loaded, LoadedVision)
    network = shared.Tempered(loaded.network.cpu().eval(), temperature)
    model = FittedVision(network, loaded.tokenizer, training_plan.task.classes, loaded.channels)
    return ImagePredictor([model], training_plan.recipe.data)


def _what(source: str, table: Table) -> tuple[Decision, ...]:
    """The decision on how the source was read."""
    if table.columns.label != CLASS or not source_path(source).is_dir():
        return ()
    return (
        Decision(
            "source",
            f"images of {len(table.classes)} classes",
            f"{table.source} is a folder with one sub-folder of images per class",
        ),
    )


def _shown(entry: Mapping[str, object], table: Table) -> dict[str, Any]:
    """A hard row with its image in place of the hash of its content."""
    place = table.column("row").tolist().index(entry["row"])
    path = table.column("path")[place]
    return {**entry, "text": image_name(path, table.source), "image": thumbnail(path)}


def _path(part: DataPart, options: InferenceOptions | None = None) -> str | None:
    given = (options.text if options else None) or part.text
    return given[0] if given else None


def _forward(
    network: Callable[..., torch.Tensor], training_plan: TrainingPlan, table: Table
) -> Outputs:
    loaded = training_plan.loaded
    assert isinstance(loaded, LoadedVision)
    return forward_images(
        network, loaded.tokenizer, loaded.channels, training_plan.task.classes, table
    )


DEFINITION = TaskDefinition(
    name="image-classification",
    read=read,
    load=load,
    encode=encode_rows,
    make_task=make_task,
    check_examples=check_examples,
    listeners=shared.listeners,
    save=shared.save,
    score=score_rows,
    prediction_columns=shared.tell,
    load_plain_model=load_plain_model,
    use_runs=use_runs,
    use_fitted=use_fitted,
)
