"""Sequence-to-sequence, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Finding
from holdfast.data.pairs import given_target, load_pairs, pairs_from_texts
from holdfast.data.table import Splits, Table
from holdfast.evaluate.generation import (
    need_packages,
    sample_positions,
)
from holdfast.evaluate.seq2seq import read_pairs, write_texts
from holdfast.methods.token_smoothing import TokenSmoothing
from holdfast.models.seq2seq import LoadedSeq2Seq, end_token, load_seq2seq
from holdfast.models.seq2seq_network import load_saved_seq2seq
from holdfast.pipeline.adapters import quantize_spec
from holdfast.pipeline.folder import MODEL, RECIPE, need_run
from holdfast.pipeline.kinds.generating import (
    best_device,
    find_text_metric,
    prediction_lines,
    texts_column,
    the_run,
)
from holdfast.pipeline.kinds.seq2seq_score import (
    Side,
    encode_rows,
    score_rows,
    scores_of,
    writing_of,
)
from holdfast.pipeline.kinds.watching import (
    Sample,
    Watch,
    extra_metrics,
    text_metric_of,
    watched_positions,
    watches,
    with_tables,
)
from holdfast.pipeline.ready import Kind, Ready
from holdfast.recipe import DataPart, Recipe, read_recipe
from holdfast.tasks.metrics import Metric
from holdfast.tasks.seq2seq import EncodedPairs, SequenceToSequence, encode_pairs
from holdfast.training.loop import Fitted
from holdfast.training.plan import Phase


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """The pairs of a source; ``like`` another table, with its columns."""
    columns = like.columns if like is not None else None
    template = data.template or (columns.template if columns else None)
    return load_pairs(
        source, text=None if template else (columns.text if columns else data.text),
        target=columns.label if columns else given_target(data.label, data.target),
        group=data.group, template=template, encoding=data.encoding, config=data.config,
    )  # fmt: skip


def load(recipe: Recipe, table: Table) -> LoadedSeq2Seq:
    """The recipe's model, with limits from the table's targets."""
    if recipe.methods.get("contrast"):
        raise RecipeError("methods.contrast", "compares classes, which this task has not",
                          recipe.task, "Leave it out.")  # fmt: skip
    if recipe.generate.rows:
        need_packages()
    model = recipe.model
    return load_seq2seq(
        model.name, table.column("target"), dropout=model.dropout, revision=model.revision,
        trust_remote_code=model.trust_remote_code, max_length=model.max_length,
        max_target_length=model.max_target_length, seed=recipe.seed,
        quantize=quantize_spec(recipe),
    )  # fmt: skip


def watch(
    loaded: LoadedSeq2Seq, splits: Splits, train: EncodedPairs, valid: EncodedPairs,
    recipe: Recipe, probe_rows: int,
) -> Watch | None:  # fmt: skip
    """What is written at the evaluation points, where the recipe asks for it."""
    if not watches(recipe):
        return None
    writing = writing_of(recipe, loaded.max_target_length)
    at = watched_positions(train, valid, probe_rows, recipe)

    def sample(side: Side) -> Sample:
        def write(network: Any, device: Any) -> list[str]:
            return write_texts(
                network, loaded.tokenizer, side.examples, side.sample, writing, device
            )[0]

        return Sample(side.texts("text"), side.texts("target"), side.tables, write)

    samples = {
        "train": sample(Side(splits.train.table, train, at["train"])),
        "valid": sample(Side(splits.valid.table, valid, at["valid"])),
    }
    answers = texts_column(train, splits.train.table, "target")
    return Watch(samples, answers, text_metric_of(recipe), writing.max_new_tokens)


def make_task(
    loaded: LoadedSeq2Seq, table: Table, recipe: Recipe, metric: Metric | None
) -> SequenceToSequence:
    return SequenceToSequence(int(loaded.tokenizer.pad_token_id))


def notices(examples: EncodedPairs, loaded: LoadedSeq2Seq) -> tuple[Finding, ...]:
    """Sources and targets that were cut, and rows without anything to learn, all counted."""
    n = max(1, len(examples))
    sides = (
        ("truncated_sources", examples.source_cut, "sources", loaded.max_length, "max_length"),
        ("truncated_targets", examples.target_cut, "targets", loaded.max_target_length,
         "max_target_length"),
    )  # fmt: skip
    found = [
        Finding(
            check, "warn" if count > 0.05 * n else "info", count / n, count, (),
            f"{count} training {what} ({count / n:.1%}) are longer than {limit} tokens; their ends "
            "are not read",
            f"Raise model.{key} if the model and the memory allow it.",
        )
        for check, count, what, limit, key in sides if count
    ]  # fmt: skip
    if examples.left_out:
        count = len(examples.left_out)
        found.append(Finding(
            "targets_without_tokens", "warn", count / (n + count), count, examples.left_out[:100],
            f"{count} training rows have a target of which no token is left: left out",
            "Their letters are unknown to the tokenizer, or the limit is too small.", True,
        ))  # fmt: skip
    return tuple(found)


def listeners(ready: Ready) -> tuple[Any, ...]:
    return ()


def terms(phase: Phase) -> list[Any]:
    """Label smoothing where it is asked for."""
    return [TokenSmoothing(phase.label_smoothing)] if phase.label_smoothing else []


def save(folder: Path, ready: Ready, fitted: Fitted) -> dict[str, Any]:
    """Write the plain model."""
    ready.loaded.network.cpu()
    ready.loaded.network.save(folder, ready.loaded.tokenizer)
    return {}


def evaluate(run: Path, data: str) -> dict[str, Any]:
    """A ``test`` block for the rows of ``data``, which have targets, by the saved model."""
    need_run(run)
    recipe = read_recipe(run / RECIPE)
    part, device = recipe.data, best_device()
    table = load_pairs(
        data, text=None if part.template else part.text,
        target=given_target(part.label, part.target), group=part.group, template=part.template,
        encoding=part.encoding,
    )  # fmt: skip
    table = with_tables(table, recipe)
    network, tokenizer = load_saved_seq2seq(run / MODEL)
    examples = _encode_saved(table, tokenizer, recipe, need_target=True)
    outputs = read_pairs(network, int(tokenizer.pad_token_id), examples, table, device)
    side = Side(table, examples, sample_positions(len(examples), recipe.generate.rows,
                                                   recipe.seed, "test"))  # fmt: skip
    writing = writing_of(recipe, recipe.model.max_target_length or 0)
    texts, _ = write_texts(network, tokenizer, examples, side.sample, writing, device)
    made = side.generated(texts, [])
    return scores_of(outputs, made, recipe.seed, extra=extra_metrics(recipe)).to_json()


def predict(runs: Sequence[Path], data: str | Sequence[str]) -> list[str]:
    """One JSON object a row: ``row``, the generated text as ``prediction``, and ``confidence``,
    the geometric mean probability of its tokens."""
    run, recipe = the_run(runs)
    network, tokenizer = load_saved_seq2seq(run / MODEL)
    table = _sources(recipe.data, data)
    examples = _encode_saved(table, tokenizer, recipe, need_target=False)
    writing = writing_of(recipe, recipe.model.max_target_length or 0)
    texts, sure = write_texts(
        network, tokenizer, examples, np.arange(len(examples)), writing, best_device()
    )
    return prediction_lines(examples.rows, texts, sure)


def _sources(part: DataPart, data: str | Sequence[str]) -> Table:
    if not isinstance(data, str):
        return pairs_from_texts(data, template=part.template)
    return load_pairs(
        data, text=None if part.template else part.text, template=part.template,
        encoding=part.encoding, need_target=False,
    )  # fmt: skip


def _encode_saved(table: Table, tokenizer: Any, recipe: Recipe, need_target: bool) -> EncodedPairs:
    model = recipe.model
    assert model.max_length is not None
    assert model.max_target_length is not None
    return encode_pairs(
        table, tokenizer, model.max_length, model.max_target_length, end_token(tokenizer),
        need_target=need_target,
    )  # fmt: skip


KIND = Kind(
    name="seq2seq", read=read, load=load, encode=encode_rows, make_task=make_task,
    notices=notices, listeners=listeners, terms=terms, save=save, score=score_rows,
    evaluate=evaluate, predict=predict, find_metric=find_text_metric, watch=watch,
)  # fmt: skip
