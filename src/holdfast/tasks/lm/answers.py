"""Inference with a finished causal language model: scores on other rows, and generated texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.contract.fit import FittedModel
from holdfast.contract.inference import (
    Data,
    InferenceOptions,
    LabelledRequest,
    PredictionRequest,
    TextPredictions,
    encoding_for,
    group_for,
)
from holdfast.contract.predictions import groups_of
from holdfast.contract.run_folder import model_of, open_run
from holdfast.core.records import Decision, Ints, Scores
from holdfast.data.chats.chat import chats_from_prompts, form_of, load_chats
from holdfast.data.chats.turns import is_template
from holdfast.data.columns.roles import named_columns
from holdfast.data.load import rename_columns
from holdfast.data.memory.texts import raw_of_texts
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw
from holdfast.data.table import Table
from holdfast.models.compute.device import best_device
from holdfast.models.generators.causal import CausalNetwork, load_saved_causal
from holdfast.recipe import Recipe
from holdfast.tasks.generation.base import GenerationPredictor, the_runs, together
from holdfast.tasks.generation.token_scores import TokenOutputs, measure_saved, score_tokens
from holdfast.tasks.lm.generation import (
    LONGEST_ANSWER,
    prompts_of,
    token_outputs,
    whole_prompts,
    write_answers,
)
from holdfast.tasks.lm.losses import CausalLM, EncodedTokens, encode

LOSS, EVERY_TOKEN = "loss", "every token"


@dataclass(frozen=True)
class CausalLMPredictor(GenerationPredictor):
    """A model that answers the last turn of a chat, or continues a plain text (``of_text``); scored
    by the losses of the target tokens.
    """

    of_text: bool

    def read_rows(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        if isinstance(data, str):
            table, raw, decisions = _rows(self.recipe, data, options, need_answer=False)
            return PredictionRequest(raw, table, decisions=(*decisions, *table.decisions))
        raw = raw_of_texts(data)
        table = chats_from_prompts(
            [str(text or "") for text in data], "text" if self.of_text else "prompt"
        )
        given = [row for row, text in enumerate(data) if str(text or "").strip()]
        return PredictionRequest(raw, table.take(given))

    def read_labelled_rows(self, data: str, options: InferenceOptions) -> LabelledRequest:
        table, _, decisions = _rows(self.recipe, data, options, need_answer=True)
        return LabelledRequest(table, decisions)

    def predict(self, table: Table) -> TextPredictions:
        """The generated texts, with the geometric mean of their tokens' probabilities."""
        tokenizer, generate = self.tokenizer, self.recipe.generate
        plain = form_of(table) == "text"
        ids = (
            whole_prompts(table.column("text"), tokenizer)
            if plain
            else prompts_of(table, tokenizer).ids
        )
        texts, sure, ended = write_answers(
            self.network.to(best_device()),
            tokenizer,
            ids,
            new_tokens=generate.max_new_tokens or LONGEST_ANSWER,
            chat=not plain,
            beams=generate.beams,
            temperature=self.temperature,
        )
        # A continued text has no end of its own.
        return TextPredictions(texts, sure, ~ended & (not plain))

    @property
    def task(self) -> CausalLM:
        return CausalLM(self.tokenizer.pad_token_id or 0, self.recipe.train.pack)

    def encoded(self, table: Table) -> tuple[EncodedTokens, Ints]:
        length = self.recipe.model.max_length or LONGEST_ANSWER
        examples = encode(table, self.tokenizer, length)
        return examples, examples.positions

    def measure(self, examples: EncodedTokens, table: Table) -> TokenOutputs:
        losses, kept = measure_saved(self.network, self.task, examples, best_device())
        groups = groups_of(table)
        return token_outputs(losses, kept, examples, groups)

    def scored(self, table: Table) -> Scores:
        return score_tokens(self.measure(self.encoded(table)[0], table))


def load_plain_model(run: Path) -> Any:
    """Load the model of a finished run."""
    return load_saved_causal(model_of(run))[0].plain


def use_runs(runs: Sequence[Path]) -> CausalLMPredictor:
    """Predictor for one finished run, or for the mean of several, token by token."""
    recipe = the_runs(runs)
    networks, tokenizers = zip(*(load_saved_causal(model_of(run)) for run in runs), strict=True)
    tokenizer = tokenizers[0]
    # A run of plain text may have a tokenizer with a chat template all the same.
    of_text = of_plain_text(runs[0]) or not tokenizer.chat_template
    return CausalLMPredictor(together(networks, tokenizers), tokenizer, recipe, of_text)


def use_fitted(fitted: FittedModel) -> CausalLMPredictor:
    """Predictor for a fit's best checkpoint."""
    training_plan, loaded = fitted.training_plan, fitted.training_plan.loaded
    of_text = any(d.what == LOSS and d.chosen == EVERY_TOKEN for d in training_plan.decisions)
    of_text = of_text or not loaded.tokenizer.chat_template
    network = fitted.network.eval()
    assert isinstance(network, CausalNetwork)
    return CausalLMPredictor(network, loaded.tokenizer, training_plan.recipe, of_text)


def of_plain_text(run: Path) -> bool:
    """Whether the run was trained on plain text."""
    decisions = open_run(run).get("decisions") or ()
    return any(d["what"] == LOSS and d.get("chosen") == EVERY_TOKEN for d in decisions)


def _rows(
    recipe: Recipe, data: str, options: InferenceOptions, *, need_answer: bool
) -> tuple[Table, Raw, tuple[Decision, ...]]:
    """The rows of a file in the run's form, and the source as it is displayed."""
    part, column_decisions = recipe.data, []
    encoding, decisions = encoding_for(part, data, options)
    group, dropped = group_for(part, data, encoding) if need_answer else (None, ())
    template = part.template if not is_template(part.template) else None
    names = named_columns(template) if template else part.text

    def view(raw: Raw) -> Raw:
        column_decisions.append(raw)
        # A recipe may name columns, while a file of plain text has its own single column.
        if names is None or (not options.text and not set(names) <= set(raw.names)):
            return raw
        return rename_columns(raw, names, options.text)

    reading = RowOptions(
        part.text,
        options.label or part.label or part.target,
        group,
        part.template,
        part.messages,
        encoding,
        need_label=need_answer,
        view=view,
    )
    table = load_chats(data, reading)
    return table, column_decisions[0], (*decisions, *dropped)
