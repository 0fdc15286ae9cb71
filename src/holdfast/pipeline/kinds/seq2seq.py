"""Sequence-to-sequence, put together."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Finding, Scores, to_json
from holdfast.data.pairs import given_target, load_pairs, pairs_from_texts
from holdfast.data.table import Table
from holdfast.evaluate.generation import (
    Generated,
    generations_block,
    need_packages,
    sample_positions,
    score_generated,
)
from holdfast.evaluate.seq2seq import Writing, read_pairs, texts_at, write_texts
from holdfast.evaluate.tokens import TokenOutputs, compare_tokens, score_tokens
from holdfast.methods.token_smoothing import TokenSmoothing
from holdfast.models.layers import count_parameters
from holdfast.models.seq2seq import LoadedSeq2Seq, end_token, load_seq2seq
from holdfast.models.seq2seq_network import load_saved_seq2seq
from holdfast.pipeline.folder import MODEL, RECIPE, need_run
from holdfast.pipeline.kinds.generating import (
    before_training,
    best_device,
    find_text_metric,
    noted,
    other_rows,
    refuse_several,
    texts_column,
)
from holdfast.pipeline.ready import Finish, Kind, Ready, Scored
from holdfast.recipe import DataPart, Recipe, read_recipe
from holdfast.tasks.metrics import Metric
from holdfast.tasks.seq2seq import EncodedPairs, SequenceToSequence, encode_pairs
from holdfast.train.loop import Fitted
from holdfast.train.plan import Phase


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
    )  # fmt: skip


def encode_rows(table: Table, loaded: LoadedSeq2Seq, recipe: Recipe) -> EncodedPairs:
    """Source and target tokens of every row of which something is left to learn."""
    return encode_pairs(
        table, loaded.tokenizer, loaded.max_length, loaded.max_target_length,
        end_token(loaded.tokenizer),
    )  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class _Side:
    """Rows of which a sample is generated: their table, their tokens, the sample's positions."""

    table: Table
    examples: EncodedPairs
    sample: Any

    def texts(self, name: str) -> list[str]:
        return texts_at(self.table, self.examples.kept[self.sample], name)

    def generated(self, texts: list[str], untuned: list[str]) -> Generated:
        groups = None
        if self.table.has_groups:
            groups = self.texts("group")
        return Generated(
            self.examples.rows[self.sample], self.texts("text"), self.texts("target"), texts,
            untuned, groups,
        )  # fmt: skip


def score_rows(finish: Finish) -> Scored:
    """Score the saved folder, reloaded in plain Transformers, beside the untuned model."""
    start = time.perf_counter()
    ready, recipe = finish.ready, finish.ready.recipe
    device, pad = finish.job.accelerator.device, ready.task.pad_id
    train, test = _sides(finish)
    network, tokenizer = load_saved_seq2seq(finish.run / MODEL)
    outputs = read_pairs(network, pad, test.examples, test.table, device)
    writing = writing_of(recipe, ready.loaded.max_target_length)
    written = [write_texts(network, tokenizer, side.examples, side.sample, writing, device)[0]
               for side in (train, test)]  # fmt: skip
    del network
    score_s = time.perf_counter() - start
    others = other_rows(finish)
    with before_training(finish) as untuned:
        before = read_pairs(untuned, pad, test.examples, test.table, device)
        plain = [write_texts(untuned, tokenizer, side.examples, side.sample, writing, device)[0]
                 for side in (train, test)]  # fmt: skip
    made = [side.generated(*texts) for side, *texts in zip((train, test), written, plain,
                                                           strict=True)]  # fmt: skip
    tested = _scores(outputs, made[1], recipe.seed)
    blocks = {
        "classes": None, "test": {**tested.to_json(), "opened_at": finish.opened_at}, **others,
        "baseline": _baseline(outputs, before, made[1], recipe.seed),
        "generations": _generations(finish, writing, *made),
        "hardest": None, "model_facts": _facts(ready), "careless": None,
    }  # fmt: skip
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    return Scored(blocks, (), seconds, predictions=_predictions(test, outputs, written[1]))


def _sides(finish: Finish) -> tuple[_Side, _Side]:
    ready, seed, rows = finish.ready, finish.ready.recipe.seed, finish.ready.recipe.generate.rows
    examples = encode_rows(finish.table, ready.loaded, ready.recipe)
    return (
        _Side(finish.splits.train.table, ready.train,
              sample_positions(len(ready.train), rows, seed, "train")),
        _Side(finish.table, examples, sample_positions(len(examples), rows, seed, "test")),
    )  # fmt: skip


def writing_of(recipe: Recipe, longest_target: int) -> Writing:
    """The recipe's ``generate``."""
    part = recipe.generate
    return Writing(part.beams, part.max_new_tokens or longest_target)


def _scores(outputs: TokenOutputs, made: Generated, seed: int, untuned: bool = False) -> Scores:
    """The losses of all rows, and the overlaps of the generated sample, which say so."""
    scores = score_tokens(outputs, seed=seed)
    overlaps = score_generated(made, seed=seed, untuned=untuned) if len(made) else {}
    told = noted(overlaps, len(made), len(outputs.rows))
    return Scores(scores.n, {**scores.metrics, **told}, scores.extra)


def _baseline(
    outputs: TokenOutputs, before: TokenOutputs, made: Generated, seed: int
) -> dict[str, Any]:
    test = _scores(before, made, seed, untuned=True).to_json()
    what = "untuned model"
    comparison = to_json(compare_tokens(outputs, before, seed=seed))
    return {"what": what, "test": test, "all": [{"what": what, "test": test}],
            "comparison": comparison}  # fmt: skip


def _generations(
    finish: Finish, writing: Writing, train: Generated, test: Generated
) -> dict[str, Any]:
    """Texts side by side, what they repeat, and their overlap with the references."""
    recipe, table = finish.ready.recipe, finish.splits.train.table
    settings = {"beams": writing.beams, "max_new_tokens": writing.max_new_tokens,
                "rows": recipe.generate.rows}  # fmt: skip
    answers = texts_column(finish.ready.train, table, "target")
    scores = {
        "test": score_generated(test, seed=recipe.seed),
        "test_untuned": score_generated(test, seed=recipe.seed, untuned=True),
        "train": score_generated(train, seed=recipe.seed),
    }
    return {**generations_block(train, test, answers, settings), "scores": to_json(scores)}


def _facts(ready: Ready) -> dict[str, Any]:
    total, trainable = count_parameters(ready.loaded.network)
    return {
        **ready.loaded.facts, "parameters": total, "trainable": trainable,
        "precision": ready.recipe.train.precision, "max_length": ready.loaded.max_length,
        "max_target_length": ready.loaded.max_target_length,
    }  # fmt: skip


def _predictions(side: _Side, outputs: TokenOutputs, texts: list[str]) -> dict[str, Any]:
    """Every test row; the generated text where the row was in the sample, the loss where its
    target has tokens."""
    n = len(side.table)
    losses: list[float | None] = [None] * n
    written: list[str | None] = [None] * n
    for place, loss in zip(side.examples.kept, outputs.losses, strict=True):
        losses[place] = float(loss)
    for place, text in zip(side.examples.kept[side.sample], texts, strict=True):
        written[place] = text
    return texts_column_block(side.table, written, losses)


def texts_column_block(
    table: Table, written: list[str | None], losses: list[float | None]
) -> dict[str, Any]:
    """The columns of ``predictions.parquet``."""
    import pyarrow as pa

    return {
        "row": pa.array(np.asarray(table.column("row")), pa.int64()),
        "label": pa.array(table.column("target"), pa.string()),
        "prediction": pa.array(written, pa.string()), "loss": pa.array(losses, pa.float64()),
    }  # fmt: skip


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
    network, tokenizer = load_saved_seq2seq(run / MODEL)
    examples = _encode_saved(table, tokenizer, recipe, need_target=True)
    outputs = read_pairs(network, int(tokenizer.pad_token_id), examples, table, device)
    side = _Side(table, examples, sample_positions(len(examples), recipe.generate.rows,
                                                   recipe.seed, "test"))  # fmt: skip
    writing = writing_of(recipe, recipe.model.max_target_length or 0)
    texts, _ = write_texts(network, tokenizer, examples, side.sample, writing, device)
    return _scores(outputs, side.generated(texts, []), recipe.seed).to_json()


def predict(runs: Sequence[Path], data: str | Sequence[str]) -> list[str]:
    """One JSON object a row: ``row``, the generated text as ``prediction``, and ``confidence``,
    the geometric mean probability of its tokens."""
    refuse_several(runs)
    run = runs[0]
    need_run(run)
    recipe = read_recipe(run / RECIPE)
    network, tokenizer = load_saved_seq2seq(run / MODEL)
    table = _sources(recipe.data, data)
    examples = _encode_saved(table, tokenizer, recipe, need_target=False)
    writing = writing_of(recipe, recipe.model.max_target_length or 0)
    texts, sure = write_texts(
        network, tokenizer, examples, np.arange(len(examples)), writing, best_device()
    )
    return [
        json.dumps({"row": int(row), "prediction": text, "confidence": round(float(share), 6)},
                   ensure_ascii=False)
        for row, text, share in zip(examples.rows, texts, sure, strict=True)
    ]  # fmt: skip


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
    evaluate=evaluate, predict=predict, find_metric=find_text_metric,
)  # fmt: skip
