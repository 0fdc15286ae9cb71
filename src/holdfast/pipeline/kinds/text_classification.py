"""Text classification, put together: one class a text, several labels, or a number."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Finding, Outputs
from holdfast.data.labelled import load_labelled
from holdfast.data.load import load_table
from holdfast.data.memory import table_from_texts
from holdfast.data.table import Table
from holdfast.evaluate.forward import answer, forward
from holdfast.evaluate.score import score
from holdfast.models.classifier import LoadedClassifier, load_classifier
from holdfast.models.onednn import use_onednn
from holdfast.models.saved import load_saved
from holdfast.pipeline.adapters import adapter_spec
from holdfast.pipeline.folder import MODEL, RECIPE, RESULT, need_run
from holdfast.pipeline.kinds import classification as shared
from holdfast.pipeline.kinds import one_number, problems, several_labels
from holdfast.pipeline.kinds.one_number import lines as number_lines
from holdfast.pipeline.kinds.problems import LoadedText, Problem
from holdfast.pipeline.kinds.several_labels import lines as set_lines
from holdfast.pipeline.ready import Finish, Kind, Ready, Scored
from holdfast.recipe import DataPart, Recipe, read_recipe
from holdfast.tasks.base import Task
from holdfast.tasks.metrics import Metric
from holdfast.tasks.text_classification import EncodedTexts, TextClassification, encode
from holdfast.training.loop import Fitted


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """The rows of a source; ``like`` another table, with its columns and labels."""
    if like is not None:
        columns = like.columns
        classes = like.classes if columns.label_kind == "class" else like.names
        return load_labelled(
            source, text=None if data.template else columns.text, label=columns.label,
            group=data.group, template=data.template, encoding=data.encoding, config=data.config,
            kind=columns.label_kind, separator=columns.label_separator, names=classes, like=like,
            labels=data.labels,
        )  # fmt: skip
    given = bool(data.test) + bool(data.valid)
    return load_labelled(
        source, text=data.text, label=data.label, group=data.group, template=data.template,
        encoding=data.encoding, config=data.config, kind=data.label_kind,
        separator=data.label_separator, rare=data.rare, rare_below=max(2, 3 - given),
        labels=data.labels,
    )  # fmt: skip


def problem_of(kind: str | None) -> Problem | None:
    """What differs where a label is no class; ``None`` for classes."""
    return PROBLEMS.get(kind or "class")


def load(recipe: Recipe, table: Table) -> LoadedClassifier:
    """The recipe's model with a new head for the table's classes, labels or number."""
    problem, model = problem_of(table.columns.label_kind), recipe.model
    if problem is not None:
        return problems.load(recipe, table, problem)
    if recipe.train.huber:
        raise RecipeError(
            "train.huber", "does not exist for classes", recipe.train.huber,
            "Leave it out, or learn numbers: --set data.label_kind=number.",
        )  # fmt: skip
    return load_classifier(
        model.name, table.classes, pooling=model.pooling, dropout=model.dropout,
        revision=model.revision, trust_remote_code=model.trust_remote_code,
        max_length=model.max_length, seed=recipe.seed, adapter=adapter_spec(recipe),
    )  # fmt: skip


def encode_rows(table: Table, loaded: LoadedClassifier, recipe: Recipe) -> EncodedTexts:
    problem = problem_of(table.columns.label_kind)
    if problem is None or not isinstance(loaded, LoadedText):
        return encode(table, loaded.tokenizer, loaded.max_length)
    labels = problem.labels(table, loaded.scale).astype(np.float32)
    return encode(table, loaded.tokenizer, loaded.max_length, labels)


def make_task(
    loaded: LoadedClassifier, table: Table, recipe: Recipe, metric: Metric | None
) -> Task:
    kind = table.columns.label_kind or "class"
    problems.check_metric(metric, kind)
    problem = problem_of(kind)
    if problem is not None and isinstance(loaded, LoadedText):
        return problem.task(loaded, table, recipe)
    pad, classes = loaded.tokenizer.pad_token_id, table.classes
    return TextClassification(pad, classes, shared.watched(metric, classes))


def score_rows(finish: Finish) -> Scored:
    """Score the saved folder, reloaded in plain Transformers."""
    problem = problem_of(finish.table.columns.label_kind)
    if problem is not None:
        return problems.score_rows(finish, problem)

    def reloaded(table: Table) -> Outputs:
        saved = load_saved(finish.run / MODEL)
        if finish.ready.recipe.train.matmul == "onednn":
            use_onednn(saved.network)
        return answer(saved, table)

    return shared.score_classifier(finish, reloaded, _forward)


def evaluate(run: Path, data: str) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of ``run``."""
    need_run(run)
    saved = load_saved(run / MODEL, least=1)
    recipe = read_recipe(run / RECIPE)
    part = recipe.data
    table = load_labelled(
        data, text=_text(part), label=part.label, group=part.group, template=part.template,
        encoding=part.encoding, kind=part.label_kind or "class", separator=part.label_separator,
        names=saved.classes, labels=part.labels,
    )  # fmt: skip
    problem = problem_of(part.label_kind)
    if problem is None:
        return score(answer(saved, table), saved.classes).to_json()
    scale = problems.scale_of(json.loads((run / RESULT).read_text("utf-8")))
    made = problem.make(problems.ask(problem, saved, table, scale), recipe, scale)
    return problem.score(made, saved.classes).to_json()


def predict(runs: Sequence[Path], data: str | Sequence[str]) -> list[str]:
    """Classes, labels or numbers for a file as ``train`` reads them (its label column may be
    absent) or for texts."""
    for run in runs:
        need_run(run)
    kinds = {read_recipe(run / RECIPE).data.label_kind or "class" for run in runs}
    if len(kinds) > 1:
        raise RecipeError(
            "holdfast predict", "averages only runs of the same kind of label", sorted(kinds),
            "Give runs that were trained alike.",
        )  # fmt: skip
    kind, table = kinds.pop(), _rows(runs[0], data)
    if kind == "class":
        return shared.predict_lines(runs, load_saved, answer, table)
    saved = [load_saved(run / MODEL, least=1) for run in runs]
    names, mean = problems.average(saved, table, sets=kind == "several")
    rows = table.column("row")
    return set_lines(rows, mean, names) if kind == "several" else number_lines(rows, mean[:, 0])


def _rows(run: Path, data: str | Sequence[str]) -> Table:
    if not isinstance(data, str):
        return table_from_texts(data)
    part = read_recipe(run / RECIPE).data
    # The labels of other rows are no business of a prediction, whatever they are.
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


def listeners(ready: Ready) -> tuple[Any, ...]:
    """The refitted head of the problem."""
    problem = problem_of(_kind(ready))
    return problems.listeners(ready, problem) if problem else shared.listeners(ready)


def save(folder: Path, ready: Ready, fitted: Fitted) -> dict[str, Any]:
    """Write the plain model."""
    problem = problem_of(_kind(ready))
    if problem is None:
        return shared.save(folder, ready, fitted)
    ready.loaded.network.cpu()
    problem.save(folder, ready)
    return {}


def _kind(ready: Ready) -> str:
    return PROBLEM_KINDS.get(ready.loaded.network.problem, "class")


PROBLEMS: dict[str, Problem] = {
    one.kind: one for one in (several_labels.PROBLEM, one_number.PROBLEM)
}
PROBLEM_KINDS = {one.problem: one.kind for one in PROBLEMS.values()}

KIND = Kind(
    name="text-classification", read=read, load=load, encode=encode_rows, make_task=make_task,
    notices=notices, listeners=listeners, terms=shared.terms, save=save, score=score_rows,
    evaluate=evaluate, predict=predict, find_metric=problems.find_metric,
)  # fmt: skip
