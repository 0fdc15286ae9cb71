"""What the model remembers of its training rows: ``probes.memorization`` of ``result.json``, which
``holdfast probe RUN`` shows; and the same of a model that was tuned elsewhere, by two files
(``holdfast probe MODEL``).

Members are training rows, others the test rows: validation rows chose the state. Losses that exist
are all that is read; models that write, and what they were before training, are asked once more for
single tokens, of a sample, while the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import Analysis, Session
from holdfast.analyses.memory.probe import Hear, Risks, SetScores, hearing, remember
from holdfast.contract.predictions import ANSWERS, MOST_HEARD, Predictions, Side
from holdfast.contract.run_folder import MODEL, RESULT, model_of
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError, RecipeError, RunError
from holdfast.core.records import Decision, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import WRITERS
from holdfast.core.wording import counted
from holdfast.data.options import RowOptions
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.prepare.canaries import canary_exposure
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.threads import one_thread
from holdfast.tasks.lm.verbatim import verbatim
from holdfast.training.listeners.examples import ExampleHistory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.contract.fit import FittedModel
    from holdfast.contract.written_text import Verbatim
    from holdfast.models.loading.source import Source


TRACE = "loss trace"
# Rows of each set that a model is asked about afterwards.
MOST_ROWS = 3000
OLD = "made by a version of Holdfast that did not keep what the model said of its training rows"


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The training rows that are compared, what the loss traces say of all of them, and how the
    test rows will be asked, where their stored losses are not all; ``beside`` is what else the
    block says of training rows."""

    heard: SetScores
    risks: Risks | None = None
    hear: Hear | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)


def find(session: Session) -> Members:
    """Which training rows are compared with the test rows, and by what."""
    fitted, seed = session.fitted, session.recipe.seed
    if fitted is None:
        return Members(_heard_again(session))
    hear = hearing(fitted) if fitted.recipe.task in WRITERS else None
    heard, risks = heard_of(session.train, seed, hear), risks_of(fitted)
    extracted = _extracted(fitted, seed)
    extraction = None if extracted is None else extracted.to_json()
    return Members(heard, risks, hear, {"extraction": extraction, "canaries": canary_exposure(fitted)})


def confirm(members: Members, session: Session, test: Predictions) -> Mapping[str, Any]:
    seed = session.recipe.seed
    others = heard_of(test, seed, members.hear)
    found = remember(members.heard, others, seed, members.risks)
    return replace(found, beside=members.beside).to_json()


ANALYSIS = Analysis("memory", ("probes", "memorization"), find, confirm)


def _extracted(fitted: FittedModel, seed: int) -> Verbatim | None:
    """How many training rows a causal language model completes to the word, which was asked for the
    verdict, and how many of them the model before training does."""
    if fitted.completed is None:
        return None
    table = fitted.ready.sides.train_rows.table
    start = verbatim(fitted.untuned(), fitted.ready.loaded.tokenizer, table, seed)
    return fitted.completed.beside(start)


def heard_of(told: Predictions, seed: int, hear: Hear | None = None) -> SetScores:
    """What a model says of a side, as the attacks read it; token by token of at most 500 rows, a
    fixed sample."""
    if hear is None:
        return SetScores(told.table, told.losses)
    if len(told) <= MOST_HEARD:
        return hear(told.table)
    order = generator(seed, "rows asked token by token", told.side).permutation(len(told))
    return hear(told.table.take(np.sort(order[:MOST_HEARD])))


def _heard_again(session: Session) -> SetScores:
    """Of a finished run what it stored; of a classifier by an older version, asked now."""
    if session.has("train"):
        return heard_of(session.train, session.recipe.seed)
    table = few_rows(session.train_rows, "train")
    outputs = getattr(session.predictor.answer(table), "outputs", None)
    if outputs is None:
        why = f"{session.recipe.task} runs keep no losses that can be asked for again"
        raise RunError(str(session.run), f"was {OLD}, and {why}", None, "Train it again.")
    return SetScores(table, np.asarray(outputs.losses, dtype=np.float64))


def few_rows(table: Table, side: Side) -> Table:
    """At most 3,000 of the rows, a fixed sample."""
    if len(table) <= MOST_ROWS:
        return table
    order = generator(0, "rows probed", side, counted(len(table), "row")).permutation(len(table))
    return table.take(np.sort(order[:MOST_ROWS]))


def risks_of(fitted: FittedModel) -> Risks | None:
    """The range of each training row's losses over the passes; of a long row that was learned in
    parts the largest. ``None`` where the run kept no traces."""
    for listener in fitted.job.listeners:
        made = listener.data_map() if isinstance(listener, ExampleHistory) else None
        if made is not None and np.isfinite(made.loss_range).any():
            table = fitted.ready.sides.train_rows.table
            own = np.asarray(table.column("row"), dtype=np.int64)
            risk = np.full(len(own), -np.inf)
            np.maximum.at(
                risk, table.places(made.rows), np.nan_to_num(made.loss_range, nan=-np.inf)
            )
            return Risks(table, own, np.where(np.isfinite(risk), risk, np.nan), TRACE)
    return None


def probe_run(folder: Path) -> dict[str, Any]:
    """The stored block of a finished run; of a run by an older version, what its files still say.

    Raises ``RunError`` where the folder is no finished run or its sources have changed.
    """
    run = FinishedRun(folder)
    probes = run.result.get("probes") or {}
    found = probes.get("memorization")
    if not isinstance(found, Mapping):
        if not run.has("train"):
            notify(Decision(ANSWERS, "missing", f"{folder} was {OLD}: its model is asked now"))
        # Answers that were changed are refused before the model is asked.
        test, members = run.test, find(run)
        with one_thread():
            found = confirm(members, run, test)
    return memory_document(found, probes.get("forgetting"))


def memory_document(memorization: Mapping[str, object], forgetting: object) -> dict[str, Any]:
    """What ``--json`` prints: a number that is not known is null."""
    plain: dict[str, Any] = to_json(
        {"schema": 1, "memorization": memorization, "forgetting": forgetting}
    )
    return plain


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
    tables = _tables(files, lambda file: load_labelled(file, options))
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

    tables = _tables(files, read)
    device = best_device()
    told = verbatim(tuned.to(device), tokenizer, tables[0], 0)
    if start is not None:
        told = told.beside(verbatim(start.to(device), tokenizer, tables[0], 0))
    examples = [encode(table, tokenizer, length) for table in tables]
    task = CausalLM(tokenizer.pad_token_id or 0)
    return (*_by_tokens(tables, examples, task, (tuned, start)), {"extraction": told.to_json()})


def _rewritten(folder: Path, files: Files) -> tuple[SetScores, SetScores]:
    from holdfast.data.pairs import load_pairs
    from holdfast.models.generators.seq2seq import end_token
    from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
    from holdfast.tasks.seq2seq.losses import SequenceToSequence, encode_pairs

    tuned, start, tokenizer = _with_start(load_saved_seq2seq, folder, files)
    tables = _tables(files, lambda file: load_pairs(file, _options(files)))
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
    from holdfast.analyses.memory.probe import heard
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


def _tables(files: Files, read: Callable[[str], Table]) -> list[Table]:
    return [few_rows(read(files.members), "train"), few_rows(read(files.others), "test")]
