"""``Chats``: conversations that wait, are answered beside one another by one thread, and end.

Everything is bounded: how many wait and are answered at once, their places in the model, their
time. Whoever asks hears of his own conversation on his own event loop and blocks nobody.
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
from holdfast.models.loading.tokenizer import position_limit
from holdfast.plugins.service.chat.decoder import DecodedText, Decoder, Pieces, chooser, decoder_of
from holdfast.plugins.service.chat.request import Ask, ChatError
from holdfast.plugins.store.records import new_id
from holdfast.tasks.generation.token_scores import drawing
from holdfast.tasks.lm.chat_tokens import prompt_tokens
from holdfast.tasks.lm.generation import LONGEST_ANSWER, closing, stop_tokens, whole_prompts

Ending = Literal["stop", "length", "gone", "deadline", "failed"]
LOG = logging.getLogger(__name__)
# Tokens at the end of an answer in which the words that close it are looked for, as ``chat`` does.
TAIL = 32
# Other users of the model, who wait for the same lock, get it between two steps.
BREATH_S = 0.0005
COUNTED = (
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
# Does a job that needs the model alone, and gives what it gives.
Within = Callable[[Callable[[], Any]], Any]
# A text of more characters than this for each place cannot fit, whatever the tokenizer.
LONGEST_TOKEN = 128


def at_once(job: Callable[[], Any]) -> Any:
    """Do ``job`` here and now: nobody else asks the model."""
    return job()


@dataclass(frozen=True, slots=True)
class ChatBounds:
    """How many conversations are answered at once (``together``) and may wait besides; after how
    many seconds one ends unfinished; how many bytes of keys and values all of them may take."""

    together: int = 8
    waiting: int = 32
    deadline_s: float = 300.0
    memory: int = 2**30


@dataclass(frozen=True, slots=True)
class Ended:
    """How an answer ended: its ``text``, why, its tokens and those of what was asked, and the
    geometric mean of its tokens' probabilities (``None`` where it has none)."""

    text: str
    why: Ending
    prompt_tokens: int
    tokens: int
    confidence: float | None = None


@dataclass(eq=False)
class Conversation:
    """One that was taken on: ``heard`` gets its answer piece by piece, last how it ended. Whoever
    has begun one calls ``leave`` when he reads no more."""

    id: str
    ask: Ask
    row: DecodedText
    new_tokens: int
    written: Pieces
    at: float
    deadline: float
    loop: asyncio.AbstractEventLoop
    heard: asyncio.Queue[str | Ended] = field(default_factory=asyncio.Queue)
    gone: bool = False
    ended: Ended | None = None

    def tell(self, what: str | Ended) -> None:
        # The loop of somebody who left may be closed by now.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.heard.put_nowait, what)

    def leave(self) -> None:
        """Nobody reads any more: the answer is written no further."""
        self.gone = True


@dataclass(frozen=True, slots=True)
class ChatModel:
    """A causal model of Transformers (``plain``) with its tokenizer: whether it was trained on
    plain text (``of_text``), and how many tokens an answer has that nobody limits."""

    plain: Any
    tokenizer: Any
    of_text: bool
    new_tokens: int | None = None


class Chats:
    """The conversations with one language model.

    ``within`` does what needs the model alone, where others use it too (by the one thread that asks
    it); ``name`` is what a client calls the model, ``mark`` the name by which it is stored.
    """

    def __init__(
        self,
        model: ChatModel,
        name: str,
        *,
        mark: str | None = None,
        within: Within = at_once,
        bounds: ChatBounds | None = None,
    ) -> None:
        plain = model.plain
        self.name, self.of_text = printable(name), model.of_text
        self.bounds = bounds or ChatBounds()
        self.decisions: tuple[Decision, ...] = ()
        self.counts: Counter[str] = Counter()
        self.since = time.time()
        self.mark = mark or self.name
        self._plain, self._within = plain, within
        # A tokenizer keeps its padding as a state, which others of its users set.
        self._tokenizer = copy.deepcopy(model.tokenizer)
        self._new_tokens = model.new_tokens or LONGEST_ANSWER
        self._end = "" if self.of_text else closing(self._tokenizer)
        config = getattr(plain, "generation_config", None)
        self._stops = stop_tokens(self._tokenizer, self._end, getattr(config, "eos_token_id", None))
        learnt = getattr(plain, "active_peft_config", None)
        taken = int(getattr(learnt, "num_virtual_tokens", None) or 0)
        self._room = position_limit(plain.config) - taken
        self._places = max(1, self.bounds.memory // _bytes_a_place(plain.config))
        # Texts are read by one thread of its own: it may wait for the model, and nobody else must.
        self._reader = ThreadPoolExecutor(1, "holdfast chat reader")
        self._entering = 0
        self._waiting: deque[Conversation] = deque()
        self._running: list[Conversation] = []
        self._changed = threading.Condition()
        self._draining = False
        self._seconds = 1.0
        self._thread: threading.Thread | None = None
        self._decoder: Decoder | None = None

    @classmethod
    def of(
        cls,
        use: Any,
        name: str,
        *,
        mark: str | None = None,
        within: Within = at_once,
        bounds: ChatBounds | None = None,
    ) -> Chats | None:
        """The conversations with a model that already answers rows (``Predictor.model``), of which
        nothing is loaded twice; ``None`` where it is no causal language model."""
        from holdfast.tasks.generation.base import best_device
        from holdfast.tasks.lm.answers import CausalLMPredictor

        if not isinstance(use, CausalLMPredictor):
            return None
        plain, longest = use.network.to(best_device()).plain, use.recipe.generate.max_new_tokens
        model = ChatModel(plain, use.tokenizer, use.of_text, longest)
        return cls(model, name, mark=mark, within=within, bounds=bounds)

    @property
    def context(self) -> int:
        """The places that a prompt and its answer have together."""
        return min(self._room, self._places)

    def warm(self) -> None:
        """Ask the model how its conversations can be joined, and start the thread."""
        if self._thread is not None:
            return
        self._decoder, decision = self._within(lambda: decoder_of(self._plain))
        self.decisions = (decision,)
        self._thread = threading.Thread(target=self._work, name="holdfast chat", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Take on no further conversation, end those that were taken on, and wait for it. May be
        called twice."""
        with self._changed:
            self._draining = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._reader.shutdown()

    def figures(self) -> dict[str, float]:
        """Numbers for /metrics: who ``waiting`` and ``running`` now; since the start conversations
        by how they came to their end, those refused, and tokens."""
        with self._changed:
            return {
                "waiting": float(len(self._waiting) + self._entering),
                "running": float(len(self._running)),
                **{f"{name}_total": float(self.counts[name]) for name in COUNTED},
            }

    async def begin(self, ask: Ask) -> Conversation:
        """Take on a conversation. Raises ``ChatError``: 400 where it does not fit the model, 503
        where too many wait or the server ends."""
        now = time.monotonic()
        with self._changed:
            if self._draining or self._thread is None:
                self.counts["refused_ending"] += 1
                raise ChatError(503, "The server is ending or not ready yet.", retry_after=5)
            waiting = len(self._waiting) + self._entering
            if waiting >= self.bounds.waiting:
                self.counts["refused_full"] += 1
                turns = (waiting + len(self._running)) / self.bounds.together
                rule = f"{waiting} conversations wait already, which is as many as may."
                after = min(60, max(1, math.ceil(self._seconds * turns)))
                raise ChatError(503, rule, code="full", retry_after=after)
            self._entering += 1
        try:
            loop = asyncio.get_running_loop()
            ids = await loop.run_in_executor(self._reader, self._ids, ask)
            new = self._new(ask, len(ids))
        except BaseException:
            with self._changed:
                self._entering -= 1
                self._changed.notify()
            raise
        conversation = Conversation(
            new_id(),
            ask,
            DecodedText(ids, _not_yet),
            new,
            Pieces(self._decode, (self._end, *ask.stops)),
            time.time(),
            now + self.bounds.deadline_s,
            loop,
        )
        with self._changed:
            self._entering -= 1
            self._waiting.append(conversation)
            self.counts["taken"] += 1
            self._changed.notify()
        return conversation

    def _ids(self, ask: Ask) -> list[int]:
        said = [ask.text] if ask.kind == "text" else [turn["content"] for turn in ask.turns]
        length, most = sum(map(len, said)), self.context * LONGEST_TOKEN
        if length > most:
            rule = f"What is asked has {length:,} characters; more than {most:,} cannot fit the "
            rule += f"{self.context:,} places of this model."
            raise ChatError(400, rule, code="context_length_exceeded")
        try:
            # Alone: a chat template runs within bounds that hold for the whole process.
            ids: list[int] = self._within(lambda: self._rendered(ask))
        except HoldfastError as error:
            raise ChatError(400, f"{error.what}: {error.rule}", param="messages") from None
        return ids

    def _rendered(self, ask: Ask) -> list[int]:
        if ask.kind == "text":
            if self.of_text:
                return whole_prompts([ask.text], self._tokenizer)[0]
            ids: list[int] = self._tokenizer(ask.text, verbose=False)["input_ids"]
            return ids
        if not self.of_text:
            return prompt_tokens(self._tokenizer, ask.turns)
        if len(ask.turns) > 1 or ask.turns[0]["role"] != "user":
            rule = "This model was trained on plain text: it knows no turns and goes on with one "
            rule += "text. Send one message of the user, or ask /v1/completions."
            raise ChatError(400, rule, param="messages")
        return whole_prompts([ask.turns[0]["content"]], self._tokenizer)[0]

    def _new(self, ask: Ask, prompt: int) -> int:
        """The longest answer to a prompt of so many tokens."""
        most = self.context - prompt
        wanted = ask.tokens
        if most >= 1 and wanted is None:
            return min(self._new_tokens, max(1, self._room // 2), most)
        if wanted is not None and wanted <= most:
            return wanted
        asked = f"an answer of up to {wanted:,} tokens" if wanted else "an answer of one token"
        rule = f"This model has {self.context:,} places; what is asked takes {prompt:,} tokens and "
        rule += f"{asked} as many more. Shorten the messages or max_tokens."
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
                self._leave_over()
                self._join_one()
                self._step()
            # One defect must not take the thread, and everybody's answers, with it.
            except Exception:
                LOG.exception("conversations failed")
                with self._changed:
                    failed, self._running = self._running, []
                # Half of a step may be in the old one.
                kind: Any = type(self._decoder)
                self._decoder = kind(self._plain)
                for one in failed:
                    self._over(one, "failed")
            time.sleep(BREATH_S)

    def _leave_over(self) -> None:
        """Those whose client has left, or whose time is up."""
        now = time.monotonic()
        with self._changed:
            over = [c for c in (*self._waiting, *self._running) if c.gone or c.deadline < now]
        for one in over:
            self._end_of(one, "gone" if one.gone else "deadline")

    def _join_one(self) -> None:
        """At most one newcomer between two steps: reading its prompt keeps the others waiting."""
        assert self._decoder is not None
        with self._changed:
            if not self._waiting or not self._fits(self._waiting[0]):
                return
            one = self._waiting.popleft()
            self._running.append(one)
        self._wrote(one, self._within(lambda: self._begun(one)))

    def _begun(self, one: Conversation) -> int:
        """Read the prompt; the first token."""
        assert self._decoder is not None
        one.row.choose = chooser(
            self._plain,
            one.row.prompt,
            one.ask.seed,
            max_new_tokens=one.new_tokens,
            pad_token_id=self._tokenizer.pad_token_id or 0,
            eos_token_id=list(self._stops) or None,
            **drawing(one.ask.temperature, one.ask.top_p),
        )
        return self._decoder.join(one.row)

    def _fits(self, newcomer: Conversation) -> bool:
        if not self._running:
            return True
        together = [newcomer, *self._running]
        widest = max(len(one.row.prompt) + one.new_tokens for one in together)
        return len(together) <= self.bounds.together and len(together) * widest <= self._places

    def _step(self) -> None:
        assert self._decoder is not None
        if not (rows := list(self._decoder.rows)):
            return
        tokens = self._within(self._decoder.step)
        owner = {id(one.row): one for one in self._running}
        for row, token in zip(rows, tokens, strict=True):
            self._wrote(owner[id(row)], token)

    def _wrote(self, one: Conversation, token: int) -> None:
        self.counts["tokens"] += 1
        full = len(one.row.written) >= one.new_tokens
        stopped = token in self._stops
        piece = one.written.add(token, last=full or stopped)
        tail = one.row.written[-TAIL:]
        # The words that close an answer may be tokens that its text does not show.
        closed = bool(self._end) and self._end in self._tokenizer.decode(tail)
        if closed and not (full or stopped or one.written.ended):
            piece += one.written.finish()
        if piece:
            one.tell(piece)
        if stopped or closed or one.written.ended:
            self._end_of(one, "stop")
        elif full:
            self._end_of(one, "length")

    def _end_of(self, one: Conversation, why: Ending) -> None:
        assert self._decoder is not None
        with self._changed:
            waits = one in self._waiting
        if not waits:
            self._decoder.leave(one.row)
        with self._changed:
            (self._waiting if waits else self._running).remove(one)
        self._over(one, why)

    def _over(self, one: Conversation, why: Ending) -> None:
        seconds = time.time() - one.at
        self.counts[why] += 1
        self._seconds += 0.2 * (seconds - self._seconds)
        logs = [log for log in one.row.logs if math.isfinite(log)]
        sure = math.exp(sum(logs) / len(logs)) if logs else None
        one.ended = Ended(one.written.text, why, len(one.row.prompt), one.written.tokens, sure)
        one.tell(one.ended)


def _not_yet(*_: Any) -> tuple[int, float]:
    raise AssertionError("a token is chosen only once the text was taken on")


def _bytes_a_place(config: Any) -> int:
    """Keys and values of one token in float32; an upper bound where a model has no heads."""
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    kept = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or int(config.hidden_size) // heads
    return 2 * 4 * int(config.num_hidden_layers) * int(kept) * int(size)
