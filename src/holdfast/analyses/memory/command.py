"""``holdfast probe``: what a finished run, or a model that was tuned elsewhere, remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.memory.probe import SetScores, remember
from holdfast.contract.predictions import ANSWERS, Side
from holdfast.contract.run_folder import MODEL, RESULT, model_of
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError, RecipeError, RunError
from holdfast.core.records import Decision, to_json
from holdfast.core.seeds import generator
from holdfast.core.wording import counted
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.threads import one_thread

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.loading.source import Source

# Rows of each file that a model is asked about.
MOST_ROWS = 3000
OLD = "made by a version of Holdfast that did not keep what the model said of its training rows"


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


def probe_run(run: Path) -> dict[str, Any]:
    """The stored block of a finished run; of a run by an older version, what its files still say.

    Raises ``RunError`` where the folder is no finished run or its sources have changed.
    """
    again = FinishedRun(run)
    probes = again.result.get("probes") or {}
    found = probes.get("memorization")
    if not isinstance(found, Mapping):
        found = _of_old(again)
    return _document(dict(found), probes.get("forgetting"))


def _document(memorization: Mapping[str, object], forgetting: object) -> dict[str, Any]:
    """What ``--json`` prints: a number that is not known is null."""
    plain: dict[str, Any] = to_json(
        {"schema": 1, "memorization": memorization, "forgetting": forgetting}
    )
    return plain


def _of_old(again: FinishedRun) -> dict[str, Any]:
    """Memory from stored test losses and a new pass over training rows."""
    task = again.recipe.task
    if not again.has("train"):
        notify(Decision(ANSWERS, "missing", f"{again.run} was {OLD}: its model is asked now"))
    test = again.told("test")
    if again.has("train"):
        told = again.told("train")
        members = SetScores(told.table, told.losses)
    else:
        table = _few(again.table("train"), "train")
        outputs = getattr(again.predictor.answer(table), "outputs", None)
        if outputs is None:
            why = f"{task} runs keep no losses that can be asked for again"
            raise RunError(str(again.run), f"was {OLD}, and {why}", None, "Train it again.")
        members = SetScores(table, np.asarray(outputs.losses, dtype=np.float64))
    with one_thread():
        return remember(members, SetScores(test.table, test.losses), again.recipe.seed).to_json()


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
    return _document(found.to_json(), None)


def is_run(path: str) -> bool:
    """Whether it is a run's folder, be it finished or not."""
    folder = Path(path).expanduser()
    return (folder / RESULT).is_file() or (folder / "events.jsonl").is_file()


def _heard(model: str, files: Files) -> tuple[SetScores, SetScores, dict[str, Any]]:
    from holdfast.models.loading.purpose import purpose_of

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
    from holdfast.data.columns.columns import NamedColumns
    from holdfast.data.labels.classes import ClassRules
    from holdfast.data.labels.texts import load_labelled
    from holdfast.models.encoders.checkpoint import load_saved
    from holdfast.tasks.forward import answer

    saved = load_saved(folder)
    named = NamedColumns(files.text, files.label, None, None)

    def read(file: str) -> Table:
        rules = ClassRules(saved.classes)
        return load_labelled(file, named, rules, encoding=files.encoding, kind="class")

    tables = [_few(read(file), side) for file, side in _sides(files)]
    heard = [SetScores(table, np.asarray(answer(saved, table).losses, float)) for table in tables]
    return heard[0], heard[1]


def _continued(folder: Path, files: Files) -> tuple[SetScores, SetScores, dict[str, Any]]:
    from holdfast.analyses.memory.token_losses import heard
    from holdfast.data.chats.chat import form_of, load_chats
    from holdfast.models.generators.causal import load_saved_causal
    from holdfast.models.loading.limits import position_limit
    from holdfast.tasks.generation.base import best_device
    from holdfast.tasks.lm.losses import CausalLM, encode
    from holdfast.tasks.lm.verbatim import verbatim

    network, tokenizer = load_saved_causal(folder)
    begun = _start_folder(folder, files)
    start = None
    if begun is not None:
        start, other = load_saved_causal(begun)
        _same_tokens(tokenizer, other, begun)
    device, task = best_device(), CausalLM(tokenizer.pad_token_id or 0)
    length = min(position_limit(network.config), 1024)

    def read(file: str) -> Table:
        table = load_chats(file, text=files.text, label=files.label, encoding=files.encoding)
        if form_of(table) != "text" and not tokenizer.chat_template:
            remedy = "Give rows of plain text, or a model with a chat template."
            raise ModelError(
                str(folder), f"has no chat template, and {file} holds chats", None, remedy
            )
        return table

    def ask(table: Table) -> SetScores:
        network.to(device)
        if start is not None:
            start.to(device)
        return heard(table, encode(table, tokenizer, length), task, network, start, device)

    tables = [_few(read(file), side) for file, side in _sides(files)]
    told = verbatim(network.to(device), tokenizer, tables[0], 0)
    if start is not None:
        told = told.beside(verbatim(start.to(device), tokenizer, tables[0], 0))
    return ask(tables[0]), ask(tables[1]), {"extraction": told.to_json()}


def _rewritten(folder: Path, files: Files) -> tuple[SetScores, SetScores]:
    from holdfast.analyses.memory.token_losses import heard
    from holdfast.data.pairs.pairs import load_pairs
    from holdfast.models.generators.seq2seq import end_token
    from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
    from holdfast.tasks.generation.base import best_device
    from holdfast.tasks.seq2seq.losses import SequenceToSequence, encode_pairs

    network, tokenizer = load_saved_seq2seq(folder)
    begun = _start_folder(folder, files)
    start = None
    if begun is not None:
        start, other = load_saved_seq2seq(begun)
        _same_tokens(tokenizer, other, begun)
    device, task = best_device(), SequenceToSequence(tokenizer.pad_token_id or 0)

    def ask(file: str, side: Side) -> SetScores:
        rows = load_pairs(file, text=files.text, target=files.label, encoding=files.encoding)
        table = _few(rows, side)
        examples = encode_pairs(table, tokenizer, 512, 256, end_token(tokenizer))
        network.to(device)
        if start is not None:
            start.to(device)
        return heard(table, examples, task, network, start, device)

    found = [ask(file, side) for file, side in _sides(files)]
    return found[0], found[1]


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


def _same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, start: Path) -> None:
    if one.get_vocab() != other.get_vocab():
        rule = "reads other tokens than the model, so their losses cannot be compared"
        raise RecipeError("--start", rule, str(start), "Name the model that it was tuned from.")


def _sides(files: Files) -> tuple[tuple[str, Side], tuple[str, Side]]:
    return (files.members, "train"), (files.others, "test")


def _few(table: Table, side: Side) -> Table:
    """At most 3,000 of the rows, a fixed sample."""
    if len(table) <= MOST_ROWS:
        return table
    order = generator(0, "rows probed", side, counted(len(table), "row")).permutation(len(table))
    return table.take(np.sort(order[:MOST_ROWS]))
