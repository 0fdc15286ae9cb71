"""The causal language modelling task: chats, instruction tuning and plain text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.fit import EncodedSplits, Read, TaskDefinition
from holdfast.contract.written_text import WrittenSamples
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding, Severity
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.chats.chat import check_same_form, form_of, is_text_file, load_chats
from holdfast.data.chats.marked import CLOSE, NEW_LINE, OPEN, marked_text
from holdfast.data.chats.turns import choose_template
from holdfast.data.mix import with_sources
from holdfast.data.options import RowOptions
from holdfast.data.source import read_first_batch
from holdfast.data.table import Table
from holdfast.metrics import Metric
from holdfast.models.generators.causal import LoadedCausal, isolates_packed_examples, load_causal
from holdfast.models.layers import count_parameters
from holdfast.models.loading.tokenizer import usual_length
from holdfast.plan.adapters import load_options
from holdfast.plan.chunks import chunk_size
from holdfast.plan.defaults import model_size
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks.generation.base import find_text_metric, save_plain
from holdfast.tasks.generation.samples import text_metric_of, watched_positions
from holdfast.tasks.lm.answers import EVERY_TOKEN, LOSS, load_plain_model, use_fitted, use_runs
from holdfast.tasks.lm.generation import answer_length, closing, stop_tokens
from holdfast.tasks.lm.losses import CausalLM, EncodedTokens, encode
from holdfast.tasks.lm.scores import answers_of, prediction_columns, sample_of, score_rows, watched

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.base import LoadedModel


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """Read the rows of a source; ``like`` another table, with its columns and form."""
    if like is None:
        table = load_chats(source, data.row_options(label=data.label or data.target))
    else:
        options = data.row_options(text=like.columns.text, label=like.columns.label)
        of_mix = data.source is not None and not _has_columns(source, data, like)
        # Rows of a mix are stored as messages, and other files have a form of their own.
        table = load_chats(source, data.row_options() if of_mix else options)
        if not of_mix or "text" in (form_of(table), form_of(like)):
            table = check_same_form(table, like)
    optional = like is not None
    return with_sources(table, source, data.source, data.row_options(), optional=optional)


def _has_columns(source: str, data: DataPart, like: Table) -> bool:
    if is_text_file(source):
        return True
    names = read_first_batch(source, data.encoding, data.config).names
    return set(like.columns.text) <= set(names)


def general(read: Read, source: str, data: DataPart, like: Table) -> Table:
    """Rows of general knowledge from before training: plain text, or chats where the run's own rows
    are chats.
    """
    table = load_chats(source, RowOptions(encoding=data.encoding))
    if form_of(table) != "text" and form_of(like) == "text":
        rule = (
            "holds chats, but the run's rows are plain text: the model has no chat "
            "template for them"
        )
        raise RecipeError("data.general", rule, source, "Use a file of plain text.")
    return table


def load(recipe: Recipe, table: Table) -> LoadedCausal:
    """Load the recipe's model, and its tokenizer with the rows' chat template."""
    options = replace(load_options(recipe), most=usual_length(form_of(table)))
    loaded = load_causal(recipe.model.name, options)
    reasons = (*loaded.decisions, *_template(loaded, table, recipe), *_packing(loaded, recipe))
    total, _ = count_parameters(loaded.network)
    return replace(loaded, decisions=reasons, defaults=f"{model_size(total)} decoder")


def refuse(recipe: Recipe) -> None:
    """Refuse settings that do not apply here."""
    smoothing = recipe.train.label_smoothing
    if smoothing:
        raise RecipeError(
            "train.label_smoothing", "does not apply to causal-lm", smoothing, "Leave it out."
        )


def _template(loaded: LoadedCausal, table: Table, recipe: Recipe) -> tuple[Decision, ...]:
    form = form_of(table)
    if form == "text":
        return (Decision(LOSS, EVERY_TOKEN, "the rows are plain text"),)
    tokenizer = loaded.tokenizer
    tokenizer.chat_template, reason = choose_template(tokenizer, form, recipe.data.template)
    end = closing(tokenizer)
    config = loaded.network.plain.generation_config
    if config is not None:
        stops = stop_tokens(tokenizer, end, config.eos_token_id)
        config.eos_token_id = stops if len(stops) > 1 else next(iter(stops), None)
    because = "prompts are not trained; the loss also covers the token that ends an answer"
    return (
        reason,
        Decision(LOSS, "the answers only", because),
        *_multi_token_end_warning(tokenizer, end),
    )


def _multi_token_end_warning(tokenizer: PreTrainedTokenizerBase, end: str) -> tuple[Decision, ...]:
    """A warning where the template's end of an answer has no token that stops generation, as of
    another model's template: then nothing but a comparison of texts can stop it."""
    pieces = tokenizer(end, add_special_tokens=False)["input_ids"]
    if len(pieces) < 2 or tokenizer.eos_token_id in pieces:
        return ()
    because = (
        f"the template's end mark is {len(pieces)} tokens of this tokenizer, and none of them "
        "stops generation. Holdfast truncates the text there; other programs continue to "
        "generate. Use the tokenizer's own template, or one whose end mark is a single token of it"
    )
    return (Decision("end of answer", end, because, prominent=True),)


def _packing(loaded: LoadedCausal, recipe: Recipe) -> tuple[Decision, ...]:
    if not recipe.train.pack:
        return ()
    if recipe.model.adapter.method == "prompt":
        rule = "cannot be used with prompt tuning, whose tokens precede every line"
        remedy = "Leave it out, or choose model.adapter.kind=lora."
        raise RecipeError("train.pack", rule, True, remedy)
    if not isolates_packed_examples(loaded.network):
        rule = (
            f"cannot be used with {loaded.facts['architecture']}: examples on one "
            "line would attend to each other"
        )
        raise RecipeError("train.pack", rule, True, "Leave it out.")
    because = (
        "set in the recipe; a test on the model shows that an example on a shared line "
        "attends only to itself"
    )
    return (Decision("packing", "on", because),)


def encode_rows(table: Table, loaded: LoadedCausal, recipe: Recipe) -> EncodedTokens:
    """Token ids of the rows."""
    return encode(table, loaded.tokenizer, loaded.max_length)


def transform_examples(examples: EncodedTokens, loaded: LoadedCausal, rows: Table) -> EncodedTokens:
    """Return the examples; raises ``DataError`` where nothing is left to train on."""
    if len(rows) and not len(examples):
        rule = f"has no row with an answer within {loaded.max_length} tokens"
        raise DataError(rows.source, rule, None, "Raise model.max_length.")
    return examples


def choose_samples(
    loaded: LoadedCausal, splits: EncodedSplits, recipe: Recipe, probe_rows: int
) -> WrittenSamples:
    """The rows for which texts are generated during training, or after it."""
    if recipe.model.adapter.method == "prompt":
        is_metric = text_metric_of(recipe) is not None
        raise RecipeError(
            "train.metric" if is_metric else "generate.watch",
            "needs generated texts, which a model with prompt tuning cannot generate before it is "
            "saved",
            recipe.train.metric if is_metric else recipe.generate.watch,
            "Leave it out, or choose model.adapter.kind=lora.",
        )
    train, valid = splits.train, splits.valid
    assert isinstance(train, EncodedTokens)
    assert isinstance(valid, EncodedTokens)
    at = watched_positions(train, valid, probe_rows, recipe)
    of_both = {"train": (splits.train_rows.table, train), "valid": (splits.valid_rows.table, valid)}
    tables = {
        split: sample_of(table, np.unique(examples.positions[at[split]]), loaded.tokenizer)
        for split, (table, examples) in of_both.items()
    }
    new = max(
        answer_length(one.prompts, loaded.tokenizer, recipe.generate.max_new_tokens)
        for one in tables.values()
    )
    samples = {split: watched(one, loaded.tokenizer, new, recipe) for split, one in tables.items()}
    return WrittenSamples(samples, answers_of(splits.train_rows.table), text_metric_of(recipe), new)


def make_task(
    loaded: LoadedCausal, table: Table, recipe: Recipe, metric: Metric | None
) -> CausalLM:
    pad = loaded.tokenizer.pad_token_id or 0
    return CausalLM(pad_id=pad, pack=recipe.train.pack, chunk=chunk_size(recipe, loaded))


def show_example(examples: EncodedTokens, loaded: LoadedCausal) -> tuple[Decision, ...]:
    """A training row of median length (``marked_text``)."""
    if not len(examples):
        return ()
    at = int(np.argsort(examples.lengths, kind="stable")[len(examples) // 2])
    line = slice(*examples.offsets[at : at + 2])
    ids, targets = examples.ids[line], examples.targets[line]
    because = (
        f"row {examples.rows[at]}: the loss covers the {count_phrase(int(targets.sum()), 'token')} "
        f"of {len(ids)} between {OPEN} and {CLOSE}; {NEW_LINE} is a line break"
    )
    return (Decision("example", marked_text(loaded.tokenizer, ids, targets), because),)


def check_examples(examples: EncodedTokens, loaded: LoadedModel, split: str) -> tuple[Finding, ...]:
    """See ``truncation``."""
    assert loaded.max_length is not None
    return truncation(examples, loaded.max_length, split)


def truncation(examples: EncodedTokens, max_length: int, split: str) -> tuple[Finding, ...]:
    """A finding for rows of a split that were truncated; the worse one where no answer is left of
    some, which are not trained or scored."""
    total, cut = max(1, len(examples.table_rows)), int(examples.cut.sum())
    lost = len(examples.left_out)
    if not cut and not lost:
        return ()
    share, limit = max(cut, lost) / total, f"{max_length:,} tokens"
    because = (
        f"{count_phrase(cut, f'{split} row is', f'{split} rows are')} longer than {limit} and "
        f"truncated there ({percent_phrase(cut / total, 1)})"
    )
    remedy = "Raise model.max_length if the model allows it, or shorten the chats."
    if not lost:
        severity: Severity = "warn" if share > 0.05 else "info"
        return (Finding("truncated_texts", severity, share, cut, (), because, remedy),)
    because = (
        f"{lost:,} of {count_phrase(total, f'{split} row')} "
        f"{'is not used: its' if lost == 1 else 'are not used: their'} first {limit} contain no "
        f"token of an answer. {because[:1].upper()}{because[1:]}"
    )
    rows = examples.left_out[:100]
    return (Finding("answer_cut_off", "warn", share, lost, rows, because, remedy),)


DEFINITION = TaskDefinition(
    name="causal-lm",
    read=read,
    load=load,
    encode=encode_rows,
    make_task=make_task,
    check_examples=check_examples,
    show_example=show_example,
    save=save_plain,
    score=score_rows,
    prediction_columns=prediction_columns,
    load_plain_model=load_plain_model,
    use_runs=use_runs,
    use_fitted=use_fitted,
    find_metric=find_text_metric,
    choose_samples=choose_samples,
    general=general,
    transform_examples=transform_examples,
    refuse=refuse,
)
