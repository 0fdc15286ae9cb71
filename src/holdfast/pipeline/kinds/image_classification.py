"""Image classification, put together."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.core.records import Decision, Finding, Outputs
from holdfast.data.folders import given_sides
from holdfast.data.images import CLASS, images_at, left_out, load_images
from holdfast.data.pictures import thumbnail
from holdfast.data.table import Table
from holdfast.evaluate.images import answer_images, forward_images
from holdfast.evaluate.score import score
from holdfast.models.vision import LoadedVision, load_vision
from holdfast.models.vision_saved import load_saved_vision
from holdfast.pipeline.folder import MODEL, RECIPE, need_run
from holdfast.pipeline.kinds import classification as shared
from holdfast.pipeline.ready import Finish, Kind, Ready, Scored
from holdfast.recipe import DataPart, Recipe, read_recipe
from holdfast.tasks.image_classification import (
    EncodedImages,
    ImageClassification,
    encode_images,
)
from holdfast.tasks.metrics import Metric


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """The pictures of a source; ``like`` another table, with its classes."""
    if like is not None:
        return load_images(
            source, path=like.columns.text[0], label=like.columns.label, group=data.group,
            encoding=data.encoding, config=data.config, classes=like.classes,
            labels=data.labels,
        )  # fmt: skip
    given = len({name for name in ("test", "valid") if getattr(data, name)} | {*sides(data)[0]})
    table = load_images(
        source, path=_path(data), label=data.label, group=data.group, encoding=data.encoding,
        config=data.config, rare=data.rare, rare_below=max(2, 3 - given), labels=data.labels,
    )  # fmt: skip
    return replace(table, decisions=(*_what(source, table), *table.decisions))


def sides(data: DataPart) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """The folder's own parts for validation and test, where it has them."""
    return given_sides(str(data.path))


def load(recipe: Recipe, table: Table) -> LoadedVision:
    """The recipe's model with a new head for the table's classes."""
    model = recipe.model
    return load_vision(
        model.name, table.classes, dropout=model.dropout, revision=model.revision,
        trust_remote_code=model.trust_remote_code, seed=recipe.seed,
    )  # fmt: skip


def encode_rows(table: Table, loaded: LoadedVision, recipe: Recipe) -> EncodedImages:
    return encode_images(table, loaded.tokenizer, loaded.channels)


def make_task(
    loaded: LoadedVision, table: Table, recipe: Recipe, metric: Metric | None
) -> ImageClassification:
    return ImageClassification(table.classes, shared.watched(metric, table.classes))


def notices(examples: EncodedImages, loaded: LoadedVision) -> tuple[Finding, ...]:
    """Pictures that are decoded again for every batch, which takes longer."""
    if examples.pixels.cached or not len(examples):
        return ()
    why = (
        "they are too many to be kept decoded" if examples.pixels.affine
        else "the model's processor does more than resize, crop and normalise"
    )  # fmt: skip
    return (Finding(
        "decoded_each_time", "info", 0.0, len(examples), (),
        f"the pictures are decoded for every batch: {why}",
        "Free space in the temporary folder (TMPDIR), or make the files smaller.",
    ),)  # fmt: skip


def score_rows(finish: Finish) -> Scored:
    """Score the saved folder, reloaded in plain Transformers; the hardest rows are shown."""
    saved = load_saved_vision(finish.run / MODEL)
    scored = shared.score_classifier(finish, lambda table: answer_images(saved, table), _forward)
    hardest = {
        name: [_shown(entry, finish.table) for entry in entries]
        for name, entries in scored.blocks["hardest"].items()
    }
    return replace(scored, blocks={**scored.blocks, "hardest": hardest})


def evaluate(run: Path, data: str) -> dict[str, Any]:
    """A ``test`` block for the labelled pictures of ``data``, scored by the saved model."""
    need_run(run)
    saved = load_saved_vision(run / MODEL)
    part = read_recipe(run / RECIPE).data
    table = load_images(
        data, path=_path(part), label=part.label, group=part.group, encoding=part.encoding,
        classes=saved.classes, labels=part.labels,
    )  # fmt: skip
    return score(answer_images(saved, table), saved.classes).to_json()


def predict(runs: Sequence[Path], data: str | Sequence[str]) -> list[str]:
    """Classes for a folder or a table of pictures, or a list of paths, one line each with its
    ``path``; a picture that cannot be read has no prediction, and ``because`` says so."""
    need_run(runs[0])
    table = _pictures(runs[0], data)
    told = [json.loads(line) for line in shared.predict_lines(
        runs, load_saved_vision, answer_images, table)]  # fmt: skip
    base = _base(data) if isinstance(data, str) else Path.cwd()
    for line, path in zip(told, table.column("path"), strict=True):
        line["path"] = os.path.relpath(path, base)
    because = "the picture cannot be read"
    told += [{"row": row, "prediction": None, "confidence": None, "because": because}
             for row in left_out(table)]  # fmt: skip
    return [json.dumps(line, ensure_ascii=False) for line in sorted(told, key=lambda t: t["row"])]


def _pictures(run: Path, data: str | Sequence[str]) -> Table:
    if not isinstance(data, str):
        return images_at(data)
    part = read_recipe(run / RECIPE).data
    return load_images(data, path=_path(part), encoding=part.encoding, need_label=False)


def _what(source: str, table: Table) -> tuple[Decision, ...]:
    """What the source was taken for."""
    if table.columns.label != CLASS or not Path(source).expanduser().is_dir():
        return ()
    return (Decision(
        "source", f"pictures of {len(table.classes)} classes",
        f"{table.source} is a folder with one sub-folder of pictures a class",
    ),)  # fmt: skip


def _shown(entry: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """A hard row with its picture in place of the mark of its content."""
    place = table.column("row").tolist().index(entry["row"])
    path = table.column("path")[place]
    return {**entry, "text": os.path.relpath(path, _base(table.source)), "image": thumbnail(path)}


def _base(source: str) -> Path:
    """The folder that paths are shown relative to."""
    path = Path(source).expanduser().absolute()
    return path if path.is_dir() else path.parent


def _path(part: DataPart) -> str | None:
    return part.text[0] if part.text else None


def _forward(network: Callable[..., Any], ready: Ready, table: Table) -> Outputs:
    loaded = ready.loaded
    return forward_images(network, loaded.tokenizer, loaded.channels, ready.task.classes, table)


KIND = Kind(
    name="image-classification", read=read, load=load, encode=encode_rows, make_task=make_task,
    notices=notices, listeners=shared.listeners, terms=shared.terms, save=shared.save,
    score=score_rows, evaluate=evaluate, predict=predict, sides=sides,
)  # fmt: skip
