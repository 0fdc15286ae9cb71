"""``Chats``: conversations that wait, are answered together by one thread, and end.

Everything is bounded: the number of waiting and running conversations, the positions in the cache,
and the time. Each client receives its conversation on its own event loop and blocks no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.core.errors import HoldfastError
from holdfast.core.printable import printable
from holdfast.core.records import Decision
from holdfast.models.compute.device import best_device
from holdfast.models.loading.tokenizer import position_limit
from holdfast.plugins.service.chat.decoder import (
    DecodedText,
    Decoder,
    TextPieces,
    decoder_of,
    token_chooser,
)
from holdfast.plugins.service.chat.request import ChatError, ChatRequest
from holdfast.plugins.store.records import new_id
from holdfast.tasks.generation.token_scores import drawing
from holdfast.tasks.lm.answers import CausalLMPredictor
from holdfast.tasks.lm.chat_tokens import prompt_tokens
from holdfast.tasks.lm.generation import LONGEST_ANSWER, closing, stop_tokens, whole_prompts

EndReason = Literal["stop", "length", "gone", "deadline", "failed"]
LOG = logging.getLogger(__name__)
# Tokens at the end of an answer that are searched for the closing text, as in ``chat``.
TAIL = 32
# Between two steps, other users of the model can take the lock.
PAUSE_S = 0.0005
COUNTERS = (
    "taken",
    "tokens",
    "stop",
    "length",
    "gone",
    "deadline",
    "failed",
    "refused_full",
    "refused_ending",
)
# Runs a job with exclusive use of the model and returns its result.
RunExclusively = Callable[[Callable[[], Any]], Any]
# A text with more characters than this for each position cannot fit, whatever the tokenizer.
MAX_TOKEN_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """At most ``max_running`` conversations are answered at once and ``max_waiting`` more may wait;
    one ends unfinished after ``deadline_s`` seconds. Their keys and values take at most
    ``cache_bytes`` bytes together."""

    max_running: int = 8
    max_waiting: int = 32
    deadline_s: float = 300.0
    cache_bytes: int = 2**30


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A finished answer: its ``text``, why it ended, the tokens of the prompt and of the answer,
    and the geometric mean of its tokens' probabilities (``None`` without tokens)."""

    text: str
    end_reason: EndReason
    prompt_tokens: int
    tokens: int
    confidence: float | None = None


@dataclass(eq=False)
class Conversation:
    """One accepted conversation: ``updates`` receives the answer piece by piece, then the result.
    The caller that started one calls ``leave`` when the client stops reading."""

    id: str
    request: ChatRequest
    decoded: DecodedText
    new_tokens: int
    written: TextPieces
    started_at: float
    deadline: float
    loop: asyncio.AbstractEventLoop
    updates: asyncio.Queue[str | ChatResult] = field(default_factory=asyncio.Queue)
    abandoned: bool = False
    result: ChatResult | None = None

    def notify(self, update: str | ChatResult) -> None:
        # The event loop of a client that left may be closed.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.updates.put_nowait, update)

    def leave(self) -> None:
        """The client stopped reading: generate no further."""
        self.abandoned = True


class Chats:
    """The conversations with one loaded language model (``Predictor.model``), which is not loaded
    again.

    ``run_exclusively`` runs a job with exclusive use of the model. ``name`` is the model's name for
    clients, ``stored_name`` its name in the store.
    """

    def __init__(
        self,
        use: CausalLMPredictor,
        name: str,
        *,
        run_exclusively: RunExclusively,
        stored_name: str | None = None,
        limits: ChatLimits | None = None,
    ) -> None:
        causal_lm = use.network.to(best_device()).plain
        self.name, self.trained_on_text = printable(name), use.of_text
        self.limits = limits or ChatLimits()
        self.decisions: tuple[Decision, ...] = ()
        self.counts: Counter[str] = Counter()
        self.since = time.time()
        self.stored_name = stored_name or self.name
        self._causal_lm, self._run_exclusively = causal_lm, run_exclusively
        # A tokenizer keeps its padding as state, which its other users change.
        self._tokenizer = copy.deepcopy(use.tokenizer)
        self._new_tokens = use.recipe.generate.max_new_tokens or LONGEST_ANSWER
        self._end = "" if self.trained_on_text else closing(self._tokenizer)
        config = getattr(causal_lm, "generation_config", None)
        self._stops = stop_tokens(self._tokenizer, self._end, getattr(config, "eos_token_id", None))
        peft_config = getattr(causal_lm, "active_peft_config", None)
        virtual_tokens = int(getattr(peft_config, "num_virtual_tokens", None) or 0)
        self._position_limit = position_limit(causal_lm.config) - virtual_tokens
        self._cache_positions = max(
            1, self.limits.cache_bytes // _bytes_per_position(causal_lm.config)
        )
        # A separate thread tokenizes: it may wait for the model, and nothing else must.
        self._reader = ThreadPoolExecutor(1, "holdfast chat reader")
        self._entering = 0
        self._waiting: deque[Conversation] = deque()
        self._running: list[Conversation] = []
        self._changed = threading.Condition()
        self._draining = False
        self._mean_seconds = 1.0
        self._thread: threading.Thread | None = None
        self._decoder: Decoder | None = None

    @property
    def context(self) -> int:
        """The positions available to a prompt and its answer together."""
        return min(self._position_limit, self._cache_positions)

    def warm(self) -> None:
        """Choose the decoder that the model supports, and start the thread."""
        if self._thread is not None:
            return
        self._decoder, decision = self._run_exclusively(lambda: decoder_of(self._causal_lm))
        self.decisions = (decision,)
        self._thread = threading.Thread(target=self._work, name="holdfast chat", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Accept no further conversation, and wait until the accepted ones end. May be called
        twice."""
        with self._changed:
            self._draining = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._reader.shutdown()

    def figures(self) -> dict[str, float]:
        """Numbers for /metrics: ``waiting`` and ``running`` conversations now; since the start,
        conversations by how they ended, refused ones, and tokens."""
        with self._changed:
            return {
                "waiting": float(len(self._waiting) + self._entering),
                "running": float(len(self._running)),
                **{f"{name}_total": float(self.counts[name]) for name in COUNTERS},
            }

    async def start(self, request: ChatRequest) -> Conversation:
        """Accept a conversation. Raises ``ChatError``: 400 where it does not fit the model, 503
        where too many wait or the server is shutting down."""
        now = time.monotonic()
        with self._changed:
            if self._draining or self._thread is None:
                self.counts["refused_ending"] += 1
                raise ChatError(503, "The server is shutting down or not ready yet.", retry_after=5)
            waiting = len(self._waiting) + self._entering
            if waiting >= self.limits.max_waiting:
                self.counts["refused_full"] += 1
                turns = (waiting + len(self._running)) / self.limits.max_running
                rule = f"{waiting} conversations are already waiting, which is the limit."
                after = min(60, max(1, math.ceil(self._mean_seconds * turns)))
                raise ChatError(503, rule, code="full", retry_after=after)
            self._entering += 1
        try:
            loop = asyncio.get_running_loop()
            ids = await loop.run_in_executor(self._reader, self._prompt_ids, request)
            new = self._answer_limit(request, len(ids))
        except BaseException:
            with self._changed:
                self._entering -= 1
                self._changed.notify()
            raise
        conversation = Conversation(
            new_id(),
            request,
            DecodedText(ids, _no_token_yet),
            new,
            TextPieces(self._decode, (self._end, *request.stops)),
            time.time(),
            now + self.limits.deadline_s,
            loop,
        )
        with self._changed:
            self._entering -= 1
            self._waiting.append(conversation)
            self.counts["taken"] += 1
            self._changed.notify()
        return conversation

    def _prompt_ids(self, request: ChatRequest) -> list[int]:
        texts = (
            [request.text]
            if request.prompt_type == "text"
            else [turn["content"] for turn in request.turns]
        )
        length, most = sum(map(len, texts)), self.context * MAX_TOKEN_CHARACTERS
        if length > most:
            rule = f"The prompt has {length:,} characters; more than {most:,} cannot fit this "
            rule += f"model's context of {self.context:,} tokens."
            raise ChatError(400, rule, code="context_length_exceeded")
        try:
            # With exclusive use: a chat template runs within limits that hold for the whole
            # process.
            ids: list[int] = self._run_exclusively(lambda: self._tokenize(request))
        except HoldfastError as error:
            raise ChatError(400, f"{error.what}: {error.rule}", param="messages") from None
        return ids

    def _tokenize(self, request: ChatRequest) -> list[int]:
        if request.prompt_type == "text":
            if self.trained_on_text:
                return whole_prompts([request.text], self._tokenizer)[0]
            ids: list[int] = self._tokenizer(request.text, verbose=False)["input_ids"]
            return ids
        if not self.trained_on_text:
            return prompt_tokens(self._tokenizer, request.turns)
        if len(request.turns) > 1 or request.turns[0]["role"] != "user":
            rule = "This model was trained on plain text and continues one text without turns. "
            rule += "Send one user message, or use /v1/completions."
            raise ChatError(400, rule, param="messages")
        return whole_prompts([request.turns[0]["content"]], self._tokenizer)[0]

    def _answer_limit(self, request: ChatRequest, prompt: int) -> int:
        """The largest number of new tokens for a prompt with this number of tokens."""
        most = self.context - prompt
        requested = request.tokens
        if most >= 1 and requested is None:
            return min(self._new_tokens, max(1, self._position_limit // 2), most)
        if requested is not None and requested <= most:
            return requested
        requested_text = (
            f"an answer of up to {requested:,} tokens" if requested else "an answer of one token"
        )
        rule = f"This model has a context of {self.context:,} tokens; the prompt has {prompt:,}, "
        rule += f"which leaves no room for {requested_text}. Shorten the messages or max_tokens."
        raise ChatError(400, rule, param="messages", code="context_length_exceeded")

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._running:
                    if self._draining and not self._entering:
                        return
                    self._changed.wait()
            try:
                self._end_overdue()
                self._join_next()
                self._step()
            # One defect must not stop the thread, and with it every other conversation.
            except Exception:
                LOG.exception("conversations failed")
                with self._changed:
                    failed, self._running = self._running, []
                # The old decoder may hold half of a step.
                decoder_class: Any = type(self._decoder)
                self._decoder = decoder_class(self._causal_lm)
                for conversation in failed:
                    self._finish(conversation, "failed")
            time.sleep(PAUSE_S)

    def _end_overdue(self) -> None:
        """End conversations whose client left or whose deadline passed."""
        now = time.monotonic()
        with self._changed:
            over = [c for c in (*self._waiting, *self._running) if c.abandoned or c.deadline < now]
        for conversation in over:
            self._end_conversation(conversation, "gone" if conversation.abandoned else "deadline")

    def _join_next(self) -> None:
        """Join at most one new conversation between two steps: reading its prompt delays the
        others."""
        assert self._decoder is not None
        with self._changed:
            if not self._waiting or not self._fits(self._waiting[0]):
                return
            conversation = self._waiting.popleft()
            self._running.append(conversation)
        self._add_token(
            conversation, self._run_exclusively(lambda: self._first_token(conversation))
        )

    def _first_token(self, conversation: Conversation) -> int:
        """Read the prompt; return the first token."""
        assert self._decoder is not None
        conversation.decoded.choose = token_chooser(
            self._causal_lm,
            conversation.decoded.prompt,
            conversation.request.seed,
            max_new_tokens=conversation.new_tokens,
            pad_token_id=self._tokenizer.pad_token_id or 0,
            eos_token_id=list(self._stops) or None,
            **drawing(conversation.request.temperature, conversation.request.top_p),
        )
        return self._decoder.join(conversation.decoded)

    def _fits(self, newcomer: Conversation) -> bool:
        if not self._running:
            return True
        together = [newcomer, *self._running]
        widest = max(len(one.decoded.prompt) + one.new_tokens for one in together)
        return (
            len(together) <= self.limits.max_running
            and len(together) * widest <= self._cache_positions
        )

    def _step(self) -> None:
        assert self._decoder is not None
        if not (rows := list(self._decoder.rows)):
            return
        tokens = self._run_exclusively(self._decoder.step)
        owner = {id(one.decoded): one for one in self._running}
        for row, token in zip(rows, tokens, strict=True):
            self._add_token(owner[id(row)], token)

    def _add_token(self, conversation: Conversation, token: int) -> None:
        self.counts["tokens"] += 1
        full = len(conversation.decoded.written) >= conversation.new_tokens
        stopped = token in self._stops
        piece = conversation.written.add(token, last=full or stopped)
        tail = conversation.decoded.written[-TAIL:]
        # The closing text may be tokens that the decoded text does not show.
        closed = bool(self._end) and self._end in self._tokenizer.decode(tail)
        if closed and not (full or stopped or conversation.written.ended):
            piece += conversation.written.finish()
        if piece:
            conversation.notify(piece)
        if stopped or closed or conversation.written.ended:
            self._end_conversation(conversation, "stop")
        elif full:
            self._end_conversation(conversation, "length")

    def _end_conversation(self, conversation: Conversation, why: EndReason) -> None:
        assert self._decoder is not None
        with self._changed:
            waits = conversation in self._waiting
        if not waits:
            self._decoder.leave(conversation.decoded)
        with self._changed:
            (self._waiting if waits else self._running).remove(conversation)
        self._finish(conversation, why)

    def _finish(self, conversation: Conversation, why: EndReason) -> None:
        seconds = time.time() - conversation.started_at
        self.counts[why] += 1
        self._mean_seconds += 0.2 * (seconds - self._mean_seconds)
        log_probabilities = [
            log for log in conversation.decoded.log_probabilities if math.isfinite(log)
        ]
        confidence = (
            math.exp(sum(log_probabilities) / len(log_probabilities)) if log_probabilities else None
        )
        conversation.result = ChatResult(
            conversation.written.text,
            why,
            len(conversation.decoded.prompt),
            conversation.written.tokens,
            confidence,
        )
        conversation.notify(conversation.result)


def _no_token_yet(*_: Any) -> tuple[int, float]:
    raise AssertionError("a token is chosen only after the text has joined")


def _bytes_per_position(config: Any) -> int:
    """Keys and values of one token in float32; an upper bound where a model has no heads."""
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or int(config.hidden_size) // heads
    return 2 * 4 * int(config.num_hidden_layers) * int(key_value_heads) * int(size)
