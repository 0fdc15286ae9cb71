"""Text classification, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.core.records import Finding, Outputs
from holdfast.data.load import load_table
from holdfast.data.memory import table_from_texts
from holdfast.data.table import Table
from holdfast.evaluate.forward import answer, forward
from holdfast.evaluate.score import score
from holdfast.models.classifier import LoadedClassifier, load_classifier
from holdfast.models.onednn import use_onednn
from holdfast.models.saved import load_saved
from holdfast.pipeline.adapters import adapter_spec
from holdfast.pipeline.folder import MODEL, RECIPE, need_run
from holdfast.pipeline.kinds import classification as shared
from holdfast.pipeline.ready import Finish, Kind, Ready, Scored
from holdfast.recipe import DataPart, Recipe, read_recipe
from holdfast.tasks.metrics import Metric
from holdfast.tasks.text_classification import EncodedTexts, TextClassification, encode


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """The rows of a source; ``like`` another table, with its columns and classes."""
    if like is not None:
        return load_table(
            source, text=None if data.template else like.columns.text, label=like.columns.label,
            group=data.group, template=data.template, encoding=data.encoding, config=data.config,
            classes=like.classes,
        )  # fmt: skip
    given = bool(data.test) + bool(data.valid)
    return load_table(
        source, text=data.text, label=data.label, group=data.group, template=data.template,
        encoding=data.encoding, config=data.config, rare=data.rare, rare_below=max(2, 3 - given),
    )  # fmt: skip


def load(recipe: Recipe, table: Table) -> LoadedClassifier:
    """The recipe's model with a new head for the table's classes."""
    model = recipe.model
    return load_classifier(
        model.name, table.classes, pooling=model.pooling, dropout=model.dropout,
        revision=model.revision, trust_remote_code=model.trust_remote_code,
        max_length=model.max_length, seed=recipe.seed, adapter=adapter_spec(recipe),
    )  # fmt: skip


def encode_rows(table: Table, loaded: LoadedClassifier, recipe: Recipe) -> EncodedTexts:
    return encode(table, loaded.tokenizer, loaded.max_length)


def make_task(
    loaded: LoadedClassifier, table: Table, recipe: Recipe, metric: Metric | None
) -> TextClassification:
    pad, classes = loaded.tokenizer.pad_token_id, table.classes
    return TextClassification(pad, classes, shared.watched(metric, classes))


def score_rows(finish: Finish) -> Scored:
    """Score the saved folder, reloaded in plain Transformers."""

    def reloaded(table: Table) -> Outputs:
        saved = load_saved(finish.run / MODEL)
        if finish.ready.recipe.train.matmul == "onednn":
            use_onednn(saved.network)
        return answer(saved, table)

    return shared.score_classifier(finish, reloaded, _forward)


def evaluate(run: Path, data: str) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of ``run``."""
    need_run(run)
    saved = load_saved(run / MODEL)
    part = read_recipe(run / RECIPE).data
    table = load_table(
        data, text=_text(part), label=part.label, group=part.group, template=part.template,
        encoding=part.encoding, classes=saved.classes,
    )  # fmt: skip
    return score(answer(saved, table), saved.classes).to_json()


def predict(runs: Sequence[Path], data: str | Sequence[str]) -> list[str]:
    """Classes for a file as ``train`` reads them (its label column may be absent) or for texts."""
    need_run(runs[0])
    return shared.predict_lines(runs, load_saved, answer, _rows(runs[0], data))


def _rows(run: Path, data: str | Sequence[str]) -> Table:
    if not isinstance(data, str):
        return table_from_texts(data)
    part = read_recipe(run / RECIPE).data
    return load_table(
        data, text=_text(part), label=None, template=part.template, encoding=part.encoding,
        need_label=False,
    )  # fmt: skip


def _text(part: DataPart) -> tuple[str, ...] | None:
    return None if part.template else part.text


def _forward(network: Callable[..., Any], ready: Ready, table: Table) -> Outputs:
    loaded = ready.loaded
    return forward(network, loaded.tokenizer, loaded.max_length, ready.task.classes, table)


def notices(examples: Any, loaded: Any) -> tuple[Finding, ...]:
    return shared.truncation(examples, loaded)


KIND = Kind(
    name="text-classification", read=read, load=load, encode=encode_rows, make_task=make_task,
    notices=notices, listeners=shared.listeners, terms=shared.terms, save=shared.save,
    score=score_rows, evaluate=evaluate, predict=predict,
)  # fmt: skip
