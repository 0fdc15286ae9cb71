"""Memorization of training rows: ``probes.memorization`` of ``result.json``, which ``holdfast probe
RUN`` shows; and the same for a model trained elsewhere, with two files (``holdfast probe MODEL``).

Members are training rows, others are test rows, because validation rows chose the checkpoint. For
classifiers the stored losses are enough. Generative models and their base models score a sample of
rows once more, token by token, during the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import Analysis, Session
from holdfast.analyses.memory.probe import Risks, ScoreRows, SetScores, probe_membership, row_scorer
from holdfast.contract.predictions import ANSWERS, MOST_HEARD, Predictions, SplitName
from holdfast.contract.run_folder import MODEL, RESULT, model_of
from holdfast.core.decisions import notify
from holdfast.core.discovery import user_path
from holdfast.core.errors import ModelError, RecipeError, RunError
from holdfast.core.records import Decision, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.options import RowOptions
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.prepare.canaries import canary_exposure
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.threads import one_thread
from holdfast.tasks.lm.verbatim import verbatim_completions
from holdfast.training.listeners.examples import ExampleHistory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.contract.fit import FittedModel
    from holdfast.contract.written_text import Verbatim
    from holdfast.models.loading.source import Source


TRACE = "loss trace"
# Rows of each set that are scored after the run.
MOST_ROWS = 3000
OLDER_VERSION = (
    "made by a version of Holdfast that did not store the model's predictions of training rows"
)


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The training rows to compare, the risks of all of them by their loss traces, and how to score
    the test rows if their stored losses are not enough; ``extra_blocks`` holds further blocks on
    training rows."""

    scores: SetScores
    risks: Risks | None = None
    score_rows: ScoreRows | None = None
    extra_blocks: Mapping[str, Any] = field(default_factory=dict)


def find(session: Session) -> Members:
    """Which training rows are compared with the test rows, and by which scores."""
    fitted, seed = session.fitted, session.recipe.seed
    if fitted is None:
        return Members(_stored_scores(session))
    score_rows = row_scorer(fitted) if fitted.recipe.task in GENERATIVE_TASKS else None
    scores, risks = split_scores(session.train, seed, score_rows), risks_of(fitted)
    verbatim_rows = _extraction(fitted, seed)
    extraction = None if verbatim_rows is None else verbatim_rows.to_json()
    return Members(
        scores, risks, score_rows, {"extraction": extraction, "canaries": canary_exposure(fitted)}
    )


def confirm(members: Members, session: Session, test: Predictions) -> Mapping[str, Any]:
    seed = session.recipe.seed
    other_scores = split_scores(test, seed, members.score_rows)
    probe = probe_membership(members.scores, other_scores, seed, members.risks)
    return replace(probe, extra_blocks=members.extra_blocks).to_json()


ANALYSIS = Analysis("memory", ("probes", "memorization"), find, confirm)


def _extraction(fitted: FittedModel, seed: int) -> Verbatim | None:
    """How many training rows a causal language model completes verbatim, as counted for the
    verdict, and how many of them its base model completes."""
    if fitted.completed is None:
        return None
    table = fitted.training_plan.splits.train_rows.table
    with fitted.job.accelerator.autocast():
        start = verbatim_completions(
            fitted.base_network(), fitted.training_plan.loaded.tokenizer, table, seed
        )
    return fitted.completed.with_base_model(start)


def split_scores(
    predictions: Predictions, seed: int, score_rows: ScoreRows | None = None
) -> SetScores:
    """A model's predictions for a split, as the attacks read them; token by token for at most 500
    rows, a fixed sample."""
    if score_rows is None:
        return SetScores(predictions.table, predictions.losses)
    if len(predictions) <= MOST_HEARD:
        return score_rows(predictions.table)
    order = generator(seed, "rows asked token by token", predictions.split).permutation(
        len(predictions)
    )
    return score_rows(predictions.table.take(np.sort(order[:MOST_HEARD])))


def _stored_scores(session: Session) -> SetScores:
    """The stored predictions of a finished run; a classifier of an older version predicts now."""
    if session.has("train"):
        return split_scores(session.train, session.recipe.seed)
    table = sample_rows(session.train_rows, "train")
    outputs = getattr(session.predictor.predict_table(table), "outputs", None)
    if outputs is None:
        why = f"{session.recipe.task} runs store no losses that can be computed again"
        raise RunError(str(session.run), f"was {OLDER_VERSION}, and {why}", None, "Train it again.")
    return SetScores(table, np.asarray(outputs.losses, dtype=np.float64))


def sample_rows(table: Table, split: SplitName) -> Table:
    """At most 3,000 of the rows, a fixed sample."""
    if len(table) <= MOST_ROWS:
        return table
    order = generator(0, "rows probed", split, count_phrase(len(table), "row")).permutation(
        len(table)
    )
    return table.take(np.sort(order[:MOST_ROWS]))


def risks_of(fitted: FittedModel) -> Risks | None:
    """The range of each training row's losses over the epochs; for a long row that was split into
    pieces the largest. ``None`` for a run without traces."""
    for listener in fitted.job.listeners:
        data_map = listener.data_map() if isinstance(listener, ExampleHistory) else None
        if data_map is not None and np.isfinite(data_map.loss_range).any():
            table = fitted.training_plan.splits.train_rows.table
            rows = np.asarray(table.column("row"), dtype=np.int64)
            risk = np.full(len(rows), -np.inf)
            np.maximum.at(
                risk,
                table.positions_of(data_map.rows),
                np.nan_to_num(data_map.loss_range, nan=-np.inf),
            )
            return Risks(table, rows, np.where(np.isfinite(risk), risk, np.nan), TRACE)
    return None


def probe_run(folder: Path) -> dict[str, Any]:
    """The stored block of a finished run; for a run of an older version, computed from its files.

    Raises ``RunError`` if the folder is not a finished run or its sources have changed.
    """
    run = FinishedRun(folder)
    probes = run.result.get("probes") or {}
    block = probes.get("memorization")
    if not isinstance(block, Mapping):
        if not run.has("train"):
            notify(
                Decision(
                    ANSWERS, "missing", f"{folder} was {OLDER_VERSION}: its model predicts them now"
                )
            )
        # Changed predictions are refused before the model predicts.
        test, members = run.test, find(run)
        with one_thread():
            block = confirm(members, run, test)
    return memory_document(block, probes.get("forgetting"))


def memory_document(memorization: Mapping[str, object], forgetting: object) -> dict[str, Any]:
    """What ``--json`` prints; an unknown number is null."""
    plain: dict[str, Any] = to_json(
        {"schema": 1, "memorization": memorization, "forgetting": forgetting}
    )
    return plain


@dataclass(frozen=True, slots=True)
class Files:
    """Files of rows that a model was trained on (``members``) and rows that it never saw
    (``others``), their columns if they cannot be detected, and the base model (``start``)."""

    members: str
    others: str
    text: tuple[str, ...] | None = None
    label: str | None = None
    encoding: str | None = None
    start: str | None = None


def probe_model(model: str, files: Files) -> dict[str, Any]:
    """Test a model folder (or name on the hub) for memorization by its losses on two files: a text
    classifier, a causal language model, an encoder-decoder, or an adapter of one.

    Raises ``ModelError`` for any other model, ``DataError`` for unreadable rows, ``RecipeError`` if
    ``files.start`` has another vocabulary.
    """
    from holdfast.training.machine.machine import flushed_subnormals

    for file in (files.members, files.others):
        refuse_missing(file)
    with flushed_subnormals():
        members, others, extra_blocks = _file_scores(model, files)
    with one_thread():
        probe = replace(probe_membership(members, others, 0), extra_blocks=extra_blocks)
    return memory_document(probe.to_json(), None)


def is_run(path: str) -> bool:
    """Whether it is a run's folder, finished or not."""
    folder = user_path(path)
    return (folder / RESULT).is_file() or (folder / "events.jsonl").is_file()


def _file_scores(model: str, files: Files) -> tuple[SetScores, SetScores, dict[str, Any]]:
    from holdfast.models.loading.card import purpose_of

    folder = _folder(model)
    purpose = purpose_of(str(folder))
    if purpose == "encoder":
        return (*_classifier_scores(folder, files), {})
    if purpose == "decoder":
        return _decoder_scores(folder, files)
    if purpose == "encoder-decoder":
        return (*_seq2seq_scores(folder, files), {})
    rule = f"is made for {purpose or 'an unknown task'}, which membership inference cannot test"
    remedy = "Give a text classifier, a causal language model or an encoder-decoder."
    raise ModelError(model, rule, None, remedy)


def _folder(model: str) -> Path:
    path = user_path(model)
    if path.is_dir():
        parent = path.resolve().parent
        # A run's model folder by its own path: it must be the final model of the run.
        return (
            model_of(parent)
            if path.resolve() == parent / MODEL and (parent / RESULT).is_file()
            else path
        )
    from holdfast.models.loading.source import find_model

    source: Source = find_model(model)
    return source.folder


def _classifier_scores(folder: Path, files: Files) -> tuple[SetScores, SetScores]:
    from holdfast.data.labels.texts import load_labelled
    from holdfast.models.encoders.checkpoint import load_saved
    from holdfast.tasks.classes.encoding import answer

    saved = load_saved(folder)
    options = replace(_options(files), classes=saved.classes, label_kind="class")
    tables = _tables(files, lambda file: load_labelled(file, options))
    scores = [SetScores(table, np.asarray(answer(saved, table).losses, float)) for table in tables]
    return scores[0], scores[1]


def _decoder_scores(folder: Path, files: Files) -> tuple[SetScores, SetScores, dict[str, Any]]:
    from holdfast.data.chats.chat import form_of, load_chats
    from holdfast.models.compute.device import best_device
    from holdfast.models.generators.causal import load_saved_causal
    from holdfast.models.loading.tokenizer import position_limit
    from holdfast.tasks.lm.losses import CausalLM, encode

    tuned, start, tokenizer = _load_with_base(load_saved_causal, folder, files)
    length = min(position_limit(tuned.config), 1024)

    def read(file: str) -> Table:
        table = load_chats(file, _options(files))
        if form_of(table) != "text" and not tokenizer.chat_template:
            remedy = "Give rows of plain text, or a model with a chat template."
            raise ModelError(
                str(folder), f"has no chat template, and {file} holds chats", None, remedy
            )
        return table

    tables = _tables(files, read)
    device = best_device()
    extraction = verbatim_completions(tuned.to(device), tokenizer, tables[0], 0)
    if start is not None:
        extraction = extraction.with_base_model(
            verbatim_completions(start.to(device), tokenizer, tables[0], 0)
        )
    examples = [encode(table, tokenizer, length) for table in tables]
    task = CausalLM(tokenizer.pad_token_id or 0)
    return (
        *_by_tokens(tables, examples, task, (tuned, start)),
        {"extraction": extraction.to_json()},
    )


def _seq2seq_scores(folder: Path, files: Files) -> tuple[SetScores, SetScores]:
    from holdfast.data.pairs import load_pairs
    from holdfast.models.generators.seq2seq import end_token
    from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
    from holdfast.tasks.seq2seq.losses import SequenceToSequence, encode_pairs

    tuned, start, tokenizer = _load_with_base(load_saved_seq2seq, folder, files)
    tables = _tables(files, lambda file: load_pairs(file, _options(files)))
    end = end_token(tokenizer)
    examples = [encode_pairs(table, tokenizer, 512, 256, end) for table in tables]
    task = SequenceToSequence(tokenizer.pad_token_id or 0)
    return _by_tokens(tables, examples, task, (tuned, start))


def _load_with_base(
    load: Callable[[Path], tuple[Any, PreTrainedTokenizerBase]], folder: Path, files: Files
) -> tuple[Any, Any | None, PreTrainedTokenizerBase]:
    """A generative model, its base model if known, and their tokenizer."""
    tuned, tokenizer = load(folder)
    base = _start_folder(folder, files)
    if base is None:
        return tuned, None, tokenizer
    start, base_tokenizer = load(base)
    if tokenizer.get_vocab() != base_tokenizer.get_vocab():
        rule = "has another vocabulary than the model, so their losses cannot be compared"
        raise RecipeError("--start", rule, str(base), "Name the model's base model.")
    return tuned, start, tokenizer


def _by_tokens(
    tables: Sequence[Table], examples: Sequence[Any], task: Any, networks: tuple[Any, Any | None]
) -> tuple[SetScores, SetScores]:
    """Both networks' scores of the tokens of members and others."""
    from holdfast.analyses.memory.probe import token_scores
    from holdfast.models.compute.device import best_device

    device = best_device()
    tuned, start = networks[0].to(device), networks[1]
    start = None if start is None else start.to(device)
    members, others = (
        token_scores(table, each, task, tuned, start, device)
        for table, each in zip(tables, examples, strict=True)
    )
    return members, others


def _options(files: Files) -> RowOptions:
    return RowOptions(files.text, files.label, encoding=files.encoding)


def _start_folder(folder: Path, files: Files) -> Path | None:
    """The folder of the base model: the one that is named, else the adapter's own."""
    from holdfast.models.adapters.save import base_folder

    if files.start is not None:
        return _folder(files.start)
    base = base_folder(folder)
    if base is None:
        because = "name it with --start: the attack relative to the base model is stronger"
        notify(Decision("base model", "none", because, prominent=True))
    return base


def _tables(files: Files, read: Callable[[str], Table]) -> list[Table]:
    return [sample_rows(read(files.members), "train"), sample_rows(read(files.others), "test")]
