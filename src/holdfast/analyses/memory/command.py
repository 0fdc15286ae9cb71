"""``holdfast probe MODEL``: what a model that was tuned elsewhere remembers, by two files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.memory.analysis import few_rows, memory_document
from holdfast.analyses.memory.probe import SetScores, remember
from holdfast.contract.predictions import Side
from holdfast.contract.run_folder import MODEL, RESULT, model_of
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.data.options import RowOptions
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.stats.threads import one_thread

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.loading.source import Source


@dataclass(frozen=True, slots=True)
class Files:
    """Rows that a model learned from (``members``) and rows that it never saw (``others``), their
    columns where they cannot be told, and the model that it was tuned from."""

    members: str
    others: str
    text: tuple[str, ...] | None = None
    label: str | None = None
    encoding: str | None = None
    start: str | None = None


def probe_model(model: str, files: Files) -> dict[str, Any]:
    """The memory of a model folder (or name on the hub): a classifier of texts, a causal language
    model or an encoder-decoder, or an adapter of one, by its losses on two files.

    Raises ``ModelError`` for any other model, ``DataError`` for rows that cannot be read,
    ``RecipeError`` where ``files.start`` reads other tokens.
    """
    from holdfast.training.machine.machine import flushed_subnormals

    for file in (files.members, files.others):
        refuse_missing(file)
    with flushed_subnormals():
        members, others, beside = _heard(model, files)
    with one_thread():
        found = replace(remember(members, others, 0), beside=beside)
    return memory_document(found.to_json(), None)


def is_run(path: str) -> bool:
    """Whether it is a run's folder, be it finished or not."""
    folder = Path(path).expanduser()
    return (folder / RESULT).is_file() or (folder / "events.jsonl").is_file()


def _heard(model: str, files: Files) -> tuple[SetScores, SetScores, dict[str, Any]]:
    from holdfast.models.loading.card import purpose_of

    folder = _folder(model)
    purpose = _purpose_of_adapter(folder) or purpose_of(str(folder))
    if purpose == "encoder":
        return (*_classified(folder, files), {})
    if purpose == "decoder":
        return _continued(folder, files)
    if purpose == "encoder-decoder":
        return (*_rewritten(folder, files), {})
    rule = f"is made for {purpose or 'nothing that can be told'}, of which members cannot be asked"
    remedy = "Give a classifier of texts, a causal language model or an encoder-decoder."
    raise ModelError(model, rule, None, remedy)


def _folder(model: str) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        of = path.resolve().parent
        # The model of a run, named by itself: it must be the one that the run ended with.
        return model_of(of) if path.resolve() == of / MODEL and (of / RESULT).is_file() else path
    from holdfast.models.loading.source import find_model

    source: Source = find_model(model)
    return source.folder


def _purpose_of_adapter(folder: Path) -> str | None:
    from holdfast.core.shapes import parse_object
    from holdfast.models.adapters.save import CONFIG, is_adapter_folder

    if not is_adapter_folder(folder):
        return None
    kind = str(parse_object((folder / CONFIG).read_text("utf-8")).get("task_type"))
    known = {"SEQ_CLS": "encoder", "CAUSAL_LM": "decoder", "SEQ_2_SEQ_LM": "encoder-decoder"}
    return known.get(kind)


def _classified(folder: Path, files: Files) -> tuple[SetScores, SetScores]:
    from holdfast.data.labels.texts import load_labelled
    from holdfast.models.encoders.checkpoint import load_saved
    from holdfast.tasks.classes.encoding import answer

    saved = load_saved(folder)
    options = replace(_options(files), classes=saved.classes, kind="class")
    tables = [few_rows(load_labelled(file, options), side) for file, side in _sides(files)]
    heard = [SetScores(table, np.asarray(answer(saved, table).losses, float)) for table in tables]
    return heard[0], heard[1]


def _continued(folder: Path, files: Files) -> tuple[SetScores, SetScores, dict[str, Any]]:
    from holdfast.data.chats.chat import form_of, load_chats
    from holdfast.models.generators.causal import load_saved_causal
    from holdfast.models.loading.tokenizer import position_limit
    from holdfast.tasks.generation.base import best_device
    from holdfast.tasks.lm.losses import CausalLM, encode
    from holdfast.tasks.lm.verbatim import verbatim

    tuned, start, tokenizer = _with_start(load_saved_causal, folder, files)
    length = min(position_limit(tuned.config), 1024)

    def read(file: str) -> Table:
        table = load_chats(file, _options(files))
        if form_of(table) != "text" and not tokenizer.chat_template:
            remedy = "Give rows of plain text, or a model with a chat template."
            raise ModelError(
                str(folder), f"has no chat template, and {file} holds chats", None, remedy
            )
        return table

    tables = [few_rows(read(file), side) for file, side in _sides(files)]
    device = best_device()
    told = verbatim(tuned.to(device), tokenizer, tables[0], 0)
    if start is not None:
        told = told.beside(verbatim(start.to(device), tokenizer, tables[0], 0))
    examples = [encode(table, tokenizer, length) for table in tables]
    task = CausalLM(tokenizer.pad_token_id or 0)
    return (*_by_tokens(tables, examples, task, (tuned, start)), {"extraction": told.to_json()})


def _rewritten(folder: Path, files: Files) -> tuple[SetScores, SetScores]:
    from holdfast.data.pairs.pairs import load_pairs
    from holdfast.models.generators.seq2seq import end_token
    from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
    from holdfast.tasks.seq2seq.losses import SequenceToSequence, encode_pairs

    tuned, start, tokenizer = _with_start(load_saved_seq2seq, folder, files)

    def read(file: str) -> Table:
        return load_pairs(file, _options(files))

    tables = [few_rows(read(file), side) for file, side in _sides(files)]
    end = end_token(tokenizer)
    examples = [encode_pairs(table, tokenizer, 512, 256, end) for table in tables]
    task = SequenceToSequence(tokenizer.pad_token_id or 0)
    return _by_tokens(tables, examples, task, (tuned, start))


def _with_start(
    load: Callable[[Path], tuple[Any, PreTrainedTokenizerBase]], folder: Path, files: Files
) -> tuple[Any, Any | None, PreTrainedTokenizerBase]:
    """A model that writes, the one that it was tuned from, where that is known, and their
    tokenizer."""
    tuned, tokenizer = load(folder)
    begun = _start_folder(folder, files)
    if begun is None:
        return tuned, None, tokenizer
    start, other = load(begun)
    if tokenizer.get_vocab() != other.get_vocab():
        rule = "reads other tokens than the model, so their losses cannot be compared"
        raise RecipeError("--start", rule, str(begun), "Name the model that it was tuned from.")
    return tuned, start, tokenizer


def _by_tokens(
    tables: Sequence[Table], examples: Sequence[Any], task: Any, networks: tuple[Any, Any | None]
) -> tuple[SetScores, SetScores]:
    """What both networks say of the tokens of members and others."""
    from holdfast.analyses.memory.token_losses import heard
    from holdfast.tasks.generation.base import best_device

    device = best_device()
    tuned, start = networks[0].to(device), networks[1]
    start = None if start is None else start.to(device)
    members, others = (
        heard(table, each, task, tuned, start, device)
        for table, each in zip(tables, examples, strict=True)
    )
    return members, others


def _options(files: Files) -> RowOptions:
    return RowOptions(files.text, files.label, encoding=files.encoding)


def _start_folder(folder: Path, files: Files) -> Path | None:
    """The model that it was tuned from: the one that is named, else an adapter's own."""
    from holdfast.models.adapters.save import base_folder

    if files.start is not None:
        return _folder(files.start)
    base = base_folder(folder)
    if base is None:
        because = "name the model that it was tuned from with --start, which tells far more"
        notify(Decision("start model", "none", because, prominent=True))
    return base


def _sides(files: Files) -> tuple[tuple[str, Side], tuple[str, Side]]:
    return (files.members, "train"), (files.others, "test")
