"""``Talk``: a conversation with the model of a finished run and with its base model.

Each of the two keeps its own conversation: the next message follows its own answers. With an
adapter the base model is the same network with the adapter switched off, so nothing is loaded
twice.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from holdfast.contract.inference import run_recipe
from holdfast.contract.run_folder import model_of, open_run, unsealed_decisions
from holdfast.core.errors import HoldfastError, RecipeError
from holdfast.core.records import Decision
from holdfast.core.tasks import ENCODER_DECODER_TASKS, GENERATIVE_TASKS
from holdfast.data.chats.turns import Turn
from holdfast.models.compute.device import best_device
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.tokenizer import position_limit
from holdfast.recipe import Recipe
from holdfast.tasks.generation.token_scores import drawing
from holdfast.tasks.lm.chat_tokens import prompt_tokens
from holdfast.tasks.lm.generation import LONGEST_ANSWER, closing, stop_tokens, whole_prompts

OnText = Callable[[str], None]
# Some models have no position limit, and would generate for days.
MAX_TOKENS = 100_000


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How answers are generated: at most ``max_tokens`` each (``None``: the run's setting);
    greedily, or sampled at a ``temperature`` above 0 with the ``seed``; after a ``system`` turn
    with that text. Raises ``RecipeError`` for an invalid value."""

    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    system: str = ""

    def __post_init__(self) -> None:
        if self.max_tokens is not None and not 1 <= self.max_tokens <= MAX_TOKENS:
            rule = f"must be from 1 to {MAX_TOKENS:,}"
            raise RecipeError(
                "--max-tokens", rule, self.max_tokens, "Give the maximum number of new tokens."
            )
        # Also refuses NaN.
        if not self.temperature >= 0:
            raise RecipeError("--temperature", "must be 0 or more", self.temperature, "E.g. 0.7.")
        if not 0 <= self.seed < 2**63:
            rule = "must be a whole number from 0 to 9,223,372,036,854,775,807"
            raise RecipeError("--seed", rule, self.seed, "Give another seed.")


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers to ``message``: by the tuned model and by its base model (``None`` where it was
    not asked); ``forgotten`` is how many earlier messages no longer fit."""

    message: str
    answer: str
    start: str | None = None
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input tokens, the maximum number of new tokens, the text that ends an answer (empty: only
    stop tokens do), and how many earlier messages did not fit."""

    ids: list[int]
    max_new_tokens: int
    end_text: str = ""
    forgotten: int = 0


@dataclass
class Speaker(ABC):
    """One model with its conversation (``turns``)."""

    model: Any
    tokenizer: Any
    recipe: Recipe
    adapter_off: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    turns: list[Turn] = field(default_factory=list)

    @abstractmethod
    def make_prompt(self, message: str, max_new_tokens: int | None) -> Prompt:
        """The prompt for a message, whose answer may have ``max_new_tokens`` tokens (``None``: the
        recipe's setting)."""

    @final
    def answer(self, message: str, options: ChatOptions, on_text: OnText) -> tuple[str, int]:
        """The answer, passed on piece by piece as it is generated, and how many earlier messages no
        longer fit. The conversation keeps it, also where it was interrupted."""
        max_new_tokens = options.max_tokens or self.recipe.generate.max_new_tokens
        prompt = self.make_prompt(message, max_new_tokens)
        streamed = _StreamedText(on_text, prompt.end_text)
        try:
            with self.adapter_off():
                _stream(self.model, self.tokenizer, prompt, options, streamed)
        finally:
            self.turns += [
                {"role": "user", "content": message},
                {"role": "assistant", "content": streamed.text},
            ]
        return streamed.text, prompt.forgotten


@dataclass
class ChatSpeaker(Speaker):
    """A causal language model: it answers in its chat template, or continues a text."""

    trained_on_text: bool = False
    system: str = ""

    def make_prompt(self, message: str, max_new_tokens: int | None) -> Prompt:
        free_positions = position_limit(self.model.config)
        new_tokens = min(max_new_tokens or LONGEST_ANSWER, max(1, free_positions // 2))
        free_positions -= new_tokens
        if self.trained_on_text:
            return Prompt(whole_prompts([message], self.tokenizer)[0][-free_positions:], new_tokens)
        last: Turn = {"role": "user", "content": message}
        first: list[Turn] = [{"role": "system", "content": self.system}] if self.system else []
        for forgotten in range(0, len(self.turns) + 1, 2):
            ids = prompt_tokens(self.tokenizer, [*first, *self.turns[forgotten:], last])
            if len(ids) <= free_positions:
                break
        return Prompt(ids[-free_positions:], new_tokens, closing(self.tokenizer), forgotten // 2)


@dataclass
class PairSpeaker(Speaker):
    """An encoder-decoder: each message is a separate source."""

    def make_prompt(self, message: str, max_new_tokens: int | None) -> Prompt:
        model = self.recipe.model
        new_tokens = max_new_tokens or model.max_target_length or LONGEST_ANSWER
        encoded = self.tokenizer(message, truncation=True, max_length=model.max_length)
        return Prompt(encoded["input_ids"], new_tokens)


class Talk:
    """A conversation with a finished run.

    ``start`` says whether the base model is asked too; ``decisions`` are notices (a base model that
    could not be loaded, files without checksums).
    """

    def __init__(
        self,
        tuned: Speaker,
        start: Speaker | None,
        options: ChatOptions,
        decisions: tuple[Decision, ...],
    ) -> None:
        self.tuned, self.start_model = tuned, start
        self.options, self.decisions = options, decisions
        self.start = start is not None
        self.replies: list[Reply] = []

    @classmethod
    def of(cls, run: Path, manner: ChatOptions | None = None, *, start: bool = True) -> Talk:
        """Raises ``RunError`` if the folder is not a finished run, ``RecipeError`` if its model is
        not generative, or has no turns for ``manner.system``."""
        options = manner or ChatOptions()
        task = str(open_run(run).get("task"))
        if task not in GENERATIVE_TASKS:
            remedy = f"For predictions, use: holdfast predict {run} -"
            raise RecipeError(f"holdfast chat {run}", "needs a generative model", task, remedy)
        folder, recipe = model_of(run), run_recipe(run)
        tuned = _tuned_speaker(task, folder, recipe, run)
        if options.system:
            if not isinstance(tuned, ChatSpeaker) or tuned.trained_on_text:
                rule = "needs a model that was trained on chats"
                raise RecipeError("--system", rule, task, "Put the text into each message.")
            tuned.system = options.system
        decisions = list(unsealed_decisions([run]))
        start_speaker: Speaker | None = None
        if start:
            try:
                start_speaker = _start_model(task, tuned, recipe)
            except HoldfastError as error:
                decisions.append(Decision("base model", "not loaded", str(error)))
        return cls(tuned, start_speaker, options, tuple(decisions))

    def ask(
        self,
        message: str,
        piece: OnText = lambda _: None,
        start_piece: OnText = lambda _: None,
        between: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Both answers; each is passed to ``piece`` and ``start_piece`` as it is generated.
        ``between`` is called between the two."""
        answers: list[str] = []
        forgotten = 0
        start_speaker = self.start_model if self.start else None
        try:
            for speaker, on_text in ((self.tuned, piece), (start_speaker, start_piece)):
                if speaker is None:
                    continue
                if answers:
                    between()
                answer, dropped = speaker.answer(message, self.options, on_text)
                answers.append(answer)
                forgotten = max(forgotten, dropped)
        except KeyboardInterrupt:
            # The part generated until then is kept.
            last = self.tuned if not answers else self.start_model
            if last is not None and last.turns:
                answers.append(last.turns[-1]["content"])
            self._remember(message, answers, forgotten)
            raise
        return self._remember(message, answers, forgotten)

    def _remember(self, message: str, answers: list[str], forgotten: int) -> Reply:
        start = answers[1] if len(answers) > 1 else None
        reply = Reply(message, answers[0] if answers else "", start, forgotten)
        self.replies.append(reply)
        return reply

    def reset(self) -> None:
        """Clear the conversation."""
        self.replies.clear()
        for speaker in filter(None, (self.tuned, self.start_model)):
            speaker.turns.clear()


def _tuned_speaker(task: str, folder: Path, recipe: Recipe, run: Path) -> Any:
    from holdfast.models.generators.causal import load_saved_causal
    from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
    from holdfast.tasks.lm.answers import of_plain_text

    if task in ENCODER_DECODER_TASKS:
        pairs, tokenizer = load_saved_seq2seq(folder)
        return PairSpeaker(pairs.to(best_device()).plain, tokenizer, recipe)
    network, tokenizer = load_saved_causal(folder)
    trained_on_text = of_plain_text(run) or not tokenizer.chat_template
    return ChatSpeaker(
        network.to(best_device()).plain, tokenizer, recipe, trained_on_text=trained_on_text
    )


def _start_model(task: str, tuned: Any, recipe: Recipe) -> Speaker:
    """The base model: the same network without its adapter, or loaded separately."""
    from holdfast.runs.untuned import base_network

    base, without_adapter = base_network(tuned.model, recipe)
    base.to(best_device())
    # Both use the tuned model's template.
    if task in ENCODER_DECODER_TASKS:
        return PairSpeaker(base, tuned.tokenizer, recipe, without_adapter)
    return ChatSpeaker(
        base,
        tuned.tokenizer,
        recipe,
        without_adapter,
        trained_on_text=tuned.trained_on_text,
        system=tuned.system,
    )


class _StreamedText:
    """The text generated so far, passed on except for what may be the beginning of the
    ``end_text``."""

    def __init__(self, on_text: OnText, end_text: str) -> None:
        self._on_text, self._end_text, self._text, self._sent = on_text, end_text, "", 0

    @property
    def text(self) -> str:
        """The answer, without its end."""
        text = self._text.partition(self._end_text)[0] if self._end_text else self._text
        return text.strip()

    def add(self, text: str, last: bool) -> None:
        self._text += text
        complete = self._text.partition(self._end_text)[0] if self._end_text else self._text
        if not last:
            complete = complete[: len(complete) - self._held_back(complete)]
        # White space before an answer is not part of it.
        if not self._sent:
            self._sent = len(complete) - len(complete.lstrip())
        if len(complete) > self._sent:
            self._on_text(complete[self._sent :])
            self._sent = len(complete)

    def _held_back(self, text: str) -> int:
        """How many trailing characters may begin the end text."""
        sizes = range(min(len(self._end_text) - 1, len(text)), 0, -1)
        return next((size for size in sizes if text.endswith(self._end_text[:size])), 0)


def _stream(
    model: Any, tokenizer: Any, prompt: Prompt, options: ChatOptions, streamed: _StreamedText
) -> None:
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

    encodes = bool(getattr(model.config, "is_encoder_decoder", False))

    class Pieces(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            streamed.add(text, stream_end)

    class AtEnd(StoppingCriteria):
        """An end of several tokens, which no single one stops at."""

        def __call__(self, sequences: Any, scores: Any, **more: Any) -> Any:
            written = sequences[0] if encodes else sequences[0, len(prompt.ids) :]
            stopped = bool(prompt.end_text) and prompt.end_text in tokenizer.decode(written[-32:])
            return torch.tensor([stopped], device=sequences.device)

    device = model.get_input_embeddings().weight.device
    stops = stop_tokens(
        tokenizer, prompt.end_text, getattr(model.generation_config, "eos_token_id", None)
    )
    sampling = drawing(options.temperature)
    if sampling["do_sample"]:
        torch.manual_seed(options.seed)
    input_ids = torch.tensor([prompt.ids], device=device)
    with torch.inference_mode(), quiet_transformers():
        model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=prompt.max_new_tokens,
            max_length=None,
            min_length=0,
            num_beams=1,
            pad_token_id=tokenizer.pad_token_id or 0,
            eos_token_id=stops or None,
            streamer=Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True),
            stopping_criteria=StoppingCriteriaList([AtEnd()]),
            **sampling,
        )
