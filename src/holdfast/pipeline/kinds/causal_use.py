"""Using a finished causal language model: its score on other rows, and what it writes to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.core.records import Decision, Ints, Scores
from holdfast.data.chat import chats_from_prompts, form_of, load_chats
from holdfast.data.chat_templates import is_template
from holdfast.data.memory import raw_of_texts
from holdfast.data.raw import Raw
from holdfast.data.table import Table
from holdfast.data.template import named_columns
from holdfast.data.unlabelled import renamed
from holdfast.evaluate.causal import (
    LONGEST_ANSWER,
    measure_saved,
    prompts_of,
    token_outputs,
    whole_prompts,
    write_answers,
)
from holdfast.evaluate.tokens import score_tokens
from holdfast.models.causal import load_saved_causal
from holdfast.pipeline.folder import model_of, open_run
from holdfast.pipeline.kinds.generating import best_device, the_run, written_answers
from holdfast.pipeline.using import Answered, Answers, Asked, Data, Options, encoding_for, group_for
from holdfast.recipe import Recipe
from holdfast.tasks.causal_lm import CausalLM, encode

LOSS, EVERY_TOKEN = "loss", "every token"


class JudgedTokens:
    """Rows with answers (or plain text), scored by the saved model of one run."""

    def __init__(self, runs: Sequence[Path], data: str, options: Options) -> None:
        run, self._recipe = the_run(runs, "evaluate")
        self._network, self._tokenizer = load_saved_causal(model_of(run))
        self.table, _, self.decisions = _rows(self._recipe, data, options, need_answer=True)

    def score(self, positions: Ints | None = None) -> Scores:
        table = self.table if positions is None else self.table.take(positions)
        recipe, tokenizer = self._recipe, self._tokenizer
        examples = encode(table, tokenizer, recipe.model.max_length or LONGEST_ANSWER)
        task = CausalLM(tokenizer.pad_token_id or 0, recipe.train.pack)
        losses, kept = measure_saved(self._network, task, examples, best_device())
        groups = table.column("group") if table.has_groups else None
        return score_tokens(token_outputs(losses, kept, examples, groups))


class TokensPredictor:
    """What one run answers to the last question, or how it goes on with a text, with the geometric
    mean of its tokens' probabilities."""

    answered: Answered = "text"
    names: tuple[str, ...] = ()

    def __init__(self, runs: Sequence[Path]) -> None:
        run, self._recipe = the_run(runs, "predict")
        self._network, self._tokenizer = load_saved_causal(model_of(run))
        self._network.to(best_device())
        self._of_text = _of_plain_text(run) or not self._tokenizer.chat_template

    def ask(self, data: Data, options: Options) -> Asked:
        if isinstance(data, str):
            table, raw, decisions = _rows(self._recipe, data, options, need_answer=False)
            return Asked(raw, table, decisions=(*decisions, *table.decisions))
        raw = raw_of_texts(data)
        table = chats_from_prompts(
            [str(text or "") for text in data], "text" if self._of_text else "prompt"
        )
        given = [row for row, text in enumerate(data) if str(text or "").strip()]
        return Asked(raw, table.take(given))

    def answer(self, table: Table) -> Answers:
        tokenizer, generate = self._tokenizer, self._recipe.generate
        plain = form_of(table) == "text"
        ids = (
            whole_prompts(table.column("text"), tokenizer)
            if plain
            else prompts_of(table, tokenizer).ids
        )
        texts, sure = write_answers(
            self._network,
            tokenizer,
            ids,
            new_tokens=generate.max_new_tokens or LONGEST_ANSWER,
            chat=not plain,
            beams=generate.beams,
        )
        return written_answers(texts, sure)


def _of_plain_text(run: Path) -> bool:
    """Whether the run learned plain text; its tokenizer may have a chat template all the same."""
    decisions = open_run(run).get("decisions") or ()
    return any(d["what"] == LOSS and d.get("chosen") == EVERY_TOKEN for d in decisions)


def _rows(
    recipe: Recipe, data: str, options: Options, *, need_answer: bool
) -> tuple[Table, Raw, tuple[Decision, ...]]:
    """The rows of a file in the run's form, and the source as it is written."""
    part, seen = recipe.data, []
    encoding, decisions = encoding_for(part, data, options)
    group, dropped = group_for(part, data, encoding) if need_answer else (None, ())
    template = part.template if not is_template(part.template) else None
    names = named_columns(template) if template else part.text

    def view(raw: Raw) -> Raw:
        seen.append(raw)
        # A recipe may name columns of a file of plain text, which has one of its own.
        if names is None or (not options.text and not set(names) <= set(raw.names)):
            return raw
        return renamed(raw, names, options.text)

    table = load_chats(
        data,
        messages=part.messages,
        text=part.text,
        group=group,
        template=part.template,
        label=options.label or part.label or part.target,
        encoding=encoding,
        need_answer=need_answer,
        view=view,
    )
    return table, seen[0], (*decisions, *dropped)
