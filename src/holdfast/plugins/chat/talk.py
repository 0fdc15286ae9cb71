"""``Talk``: a conversation with the model of a finished run, beside the model that it began from.

Each of the two keeps what it said itself: the next question stands behind its own answers. With an
adapter the start model is the same network with the adapter switched off, so nothing is loaded
twice.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

from holdfast.contract.run_folder import RECIPE, model_of, open_run, unsealed_decisions
from holdfast.core.errors import HoldfastError, RecipeError
from holdfast.core.records import Decision
from holdfast.core.tasks import ENCODER_DECODER_TASKS, GENERATIVE_TASKS
from holdfast.data.chats.turns import Turn
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.tokenizer import position_limit
from holdfast.recipe import Recipe, read_recipe
from holdfast.tasks.generation.base import best_device
from holdfast.tasks.generation.token_scores import drawing
from holdfast.tasks.lm.chat_tokens import prompt_tokens
from holdfast.tasks.lm.generation import LONGEST_ANSWER, closing, stop_tokens, whole_prompts

Piece = Callable[[str], None]
# Some models have no last place, and would write for days.
MOST_TOKENS = 100_000


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are made: at most ``new_tokens`` each (``None``: as the run has it); greedily, or
    drawn at a ``temperature`` above 0 by the ``seed``. Raises ``RecipeError`` for what is none."""

    new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.new_tokens is not None and not 1 <= self.new_tokens <= MOST_TOKENS:
            rule = f"must be from 1 to {MOST_TOKENS:,}"
            raise RecipeError("--tokens", rule, self.new_tokens, "Name the longest answer.")
        # Also where it is no number at all.
        if not self.temperature >= 0:
            raise RecipeError("--temperature", "must be 0 or more", self.temperature, "E.g. 0.7.")
        if not 0 <= self.seed < 2**63:
            rule = "must be a whole number from 0 to 9,223,372,036,854,775,807"
            raise RecipeError("--seed", rule, self.seed, "Name another.")


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered to ``message``: by the tuned model and by the one that it began from
    (``None`` where it was not asked); ``forgotten`` is how many earlier messages no longer fit."""

    message: str
    answer: str
    start: str | None = None
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens that a network is given, how many ``new`` ones it may write, the text that ends an
    answer (empty: none but its stop tokens), and how many earlier messages did not fit."""

    ids: list[int]
    new: int
    end: str = ""
    forgotten: int = 0


@dataclass
class Speaker(ABC):
    """One model that answers, with what was said to it and by it (``turns``)."""

    plain: Any
    tokenizer: Any
    recipe: Recipe
    without: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    turns: list[Turn] = field(default_factory=list)

    @abstractmethod
    def prompt(self, message: str, asked: int | None) -> Prompt:
        """What the network is given for a message, of which the answer may have ``asked`` tokens
        (``None``: as the recipe has it)."""

    @final
    def answer(self, message: str, manner: Manner, piece: Piece) -> tuple[str, int]:
        """The answer, handed on piece by piece as it is written, and how many earlier messages no
        longer fit. What was said is remembered, also of an answer that was interrupted."""
        asked = manner.new_tokens or self.recipe.generate.max_new_tokens
        prompt = self.prompt(message, asked)
        said = _Said(piece, prompt.end)
        try:
            with self.without():
                _stream(self.plain, self.tokenizer, prompt, manner, said)
        finally:
            self.turns += [
                {"role": "user", "content": message},
                {"role": "assistant", "content": said.text},
            ]
        return said.text, prompt.forgotten


@dataclass
class ChatSpeaker(Speaker):
    """A causal language model: it answers in its chat template, or goes on with a text."""

    of_text: bool = False

    def prompt(self, message: str, asked: int | None) -> Prompt:
        room = position_limit(self.plain.config)
        new = min(asked or LONGEST_ANSWER, max(1, room // 2))
        room -= new
        if self.of_text:
            return Prompt(whole_prompts([message], self.tokenizer)[0][-room:], new)
        last: Turn = {"role": "user", "content": message}
        for forgotten in range(0, len(self.turns) + 1, 2):
            ids = prompt_tokens(self.tokenizer, [*self.turns[forgotten:], last])
            if len(ids) <= room:
                break
        return Prompt(ids[-room:], new, closing(self.tokenizer), forgotten // 2)


@dataclass
class PairSpeaker(Speaker):
    """An encoder-decoder: each message is a source of its own."""

    def prompt(self, message: str, asked: int | None) -> Prompt:
        model = self.recipe.model
        new = asked or model.max_target_length or LONGEST_ANSWER
        cut = self.tokenizer(message, truncation=True, max_length=model.max_length)
        return Prompt(cut["input_ids"], new)


class Talk:
    """A conversation with a finished run.

    ``start`` says whether the model that it began from is asked too; ``decisions`` what must be
    told (a model that could not be loaded beside it, files that bear no sums).
    """

    def __init__(
        self, tuned: Speaker, start: Speaker | None, manner: Manner, decisions: tuple[Decision, ...]
    ) -> None:
        self.tuned, self.start_model = tuned, start
        self.manner, self.decisions = manner, decisions
        self.start = start is not None
        self.replies: list[Reply] = []

    @classmethod
    def of(cls, run: Path, manner: Manner | None = None, *, start: bool = True) -> Talk:
        """Raises ``RunError`` for what is no finished run, ``RecipeError`` for one whose model
        writes no text."""
        task = str(open_run(run).get("task"))
        if task not in GENERATIVE_TASKS:
            raise RecipeError(
                f"holdfast chat {run}",
                "talks to a model that writes text, which this one does not",
                task,
                f"Ask it for answers with: holdfast predict {run} -",
            )
        folder, recipe = model_of(run), read_recipe(run / RECIPE)
        tuned = _saved(task, folder, recipe, run)
        decisions = list(unsealed_decisions([run]))
        beside: Speaker | None = None
        if start:
            try:
                beside = _start_model(task, tuned, recipe)
            except HoldfastError as error:
                decisions.append(Decision("start model", "not asked", str(error)))
        return cls(tuned, beside, manner or Manner(), tuple(decisions))

    def ask(
        self,
        message: str,
        piece: Piece = lambda _: None,
        start_piece: Piece = lambda _: None,
        between: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Both answers; each is handed to ``piece`` and ``start_piece`` as it is written.
        ``between`` is called after the first where there is a second."""
        said: list[str] = []
        forgotten = 0
        beside = self.start_model if self.start else None
        try:
            for speaker, told in ((self.tuned, piece), (beside, start_piece)):
                if speaker is None:
                    continue
                if said:
                    between()
                answer, left = speaker.answer(message, self.manner, told)
                said.append(answer)
                forgotten = max(forgotten, left)
        except KeyboardInterrupt:
            # What was written until then was said too.
            last = self.tuned if not said else self.start_model
            if last is not None and last.turns:
                said.append(last.turns[-1]["content"])
            self._remember(message, said, forgotten)
            raise
        return self._remember(message, said, forgotten)

    def _remember(self, message: str, said: list[str], forgotten: int) -> Reply:
        start = said[1] if len(said) > 1 else None
        reply = Reply(message, said[0] if said else "", start, forgotten)
        self.replies.append(reply)
        return reply

    def reset(self) -> None:
        """Forget what was said."""
        self.replies.clear()
        for speaker in filter(None, (self.tuned, self.start_model)):
            speaker.turns.clear()


def _saved(task: str, folder: Path, recipe: Recipe, run: Path) -> Any:
    from holdfast.models.generators.causal import load_saved_causal
    from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
    from holdfast.tasks.lm.answers import of_plain_text

    if task in ENCODER_DECODER_TASKS:
        pairs, tokenizer = load_saved_seq2seq(folder)
        return PairSpeaker(pairs.to(best_device()).plain, tokenizer, recipe)
    network, tokenizer = load_saved_causal(folder)
    of_text = of_plain_text(run) or not tokenizer.chat_template
    return ChatSpeaker(network.to(best_device()).plain, tokenizer, recipe, of_text=of_text)


def _start_model(task: str, tuned: Any, recipe: Recipe) -> Speaker:
    """The model before its training: the same network without its adapter, or loaded anew."""
    from holdfast.models.adapters.adapter import adapter_off, below_prompt, has_adapter_layers
    from holdfast.models.generators.causal import load_causal
    from holdfast.models.generators.seq2seq import load_seq2seq
    from holdfast.models.loading.options import LoadOptions

    without: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    if has_adapter_layers(tuned.plain):
        plain, without = tuned.plain, partial(adapter_off, tuned.plain)
    elif (inside := below_prompt(tuned.plain)) is not None:
        plain = inside
    else:
        model = recipe.model
        load: Any = load_seq2seq if task in ENCODER_DECODER_TASKS else load_causal
        options = LoadOptions(model.revision, model.trust_remote_code, seed=recipe.seed)
        loaded = load(model.name, options)
        plain = loaded.network.to(best_device()).plain
    # Both are asked in the tuned model's template.
    if task in ENCODER_DECODER_TASKS:
        return PairSpeaker(plain, tuned.tokenizer, recipe, without)
    return ChatSpeaker(plain, tuned.tokenizer, recipe, without, of_text=tuned.of_text)


class _Said:
    """What was written so far, handed on but for what may be the beginning of the ``end``."""

    def __init__(self, piece: Piece, end: str) -> None:
        self._piece, self._end, self._whole, self._told = piece, end, "", 0

    @property
    def text(self) -> str:
        """The answer, without its end."""
        whole = self._whole.partition(self._end)[0] if self._end else self._whole
        return whole.strip()

    def add(self, text: str, last: bool) -> None:
        self._whole += text
        ready = self._whole.partition(self._end)[0] if self._end else self._whole
        if not last:
            ready = ready[: len(ready) - self._held(ready)]
        # White space before an answer is not its own.
        if not self._told:
            self._told = len(ready) - len(ready.lstrip())
        if len(ready) > self._told:
            self._piece(ready[self._told :])
            self._told = len(ready)

    def _held(self, ready: str) -> int:
        """How much of its end may begin what ends the answer."""
        sizes = range(min(len(self._end) - 1, len(ready)), 0, -1)
        return next((size for size in sizes if ready.endswith(self._end[:size])), 0)


def _stream(plain: Any, tokenizer: Any, prompt: Prompt, manner: Manner, said: _Said) -> None:
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

    encodes = bool(getattr(plain.config, "is_encoder_decoder", False))

    class Pieces(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            said.add(text, stream_end)

    class AtEnd(StoppingCriteria):
        """An end of several tokens, which no single one stops at."""

        def __call__(self, sequences: Any, scores: Any, **more: Any) -> Any:
            written = sequences[0] if encodes else sequences[0, len(prompt.ids) :]
            stopped = bool(prompt.end) and prompt.end in tokenizer.decode(written[-32:])
            return torch.tensor([stopped], device=sequences.device)

    device = plain.get_input_embeddings().weight.device
    stops = stop_tokens(
        tokenizer, prompt.end, getattr(plain.generation_config, "eos_token_id", None)
    )
    draws = drawing(manner.temperature)
    if draws["do_sample"]:
        torch.manual_seed(manner.seed)
    given = torch.tensor([prompt.ids], device=device)
    with torch.inference_mode(), quiet_transformers():
        plain.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=prompt.new,
            max_length=None,
            min_length=0,
            num_beams=1,
            pad_token_id=tokenizer.pad_token_id or 0,
            eos_token_id=stops or None,
            streamer=Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True),
            stopping_criteria=StoppingCriteriaList([AtEnd()]),
            **draws,
        )
