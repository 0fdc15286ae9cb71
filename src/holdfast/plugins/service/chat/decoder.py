"""Several texts generated together by one model, one token of each at a step, and the decoded
pieces of text (``TextPieces``).

``PaddedBatch`` keeps keys and values in one batch that texts join and leave between any two steps.
``UncachedDecoder`` reads each text again for every token, which works with any model.
``decoder_of`` tests which of them a model supports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from holdfast.core.records import Decision
from holdfast.models.loading.quiet import quiet_transformers

SUBJECT = "conversations"
# A token, and its log probability under the distribution that it was drawn from.
ChooseToken = Callable[[Tensor, Tensor], tuple[int, float]]
# What a tokenizer decodes from bytes that are not (yet) a character.
REPLACEMENT_CHARACTER = "\ufffd"


@dataclass(eq=False)
class DecodedText:
    """A text in generation: its ``prompt``, the tokens ``written`` after it and their
    ``log_probabilities``; ``choose`` picks a token from ids [1, T] and logits [1, V]."""

    prompt: list[int]
    choose: ChooseToken
    written: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.written

    def append_token(self, logits: Tensor) -> int:
        """Pick the next token from ``logits`` [1, V] and append it."""
        ids = torch.tensor([self.ids], device=logits.device)
        token, log_probability = self.choose(ids, logits.float())
        self.written.append(token)
        self.log_probabilities.append(log_probability)
        return token


class Decoder(Protocol):
    """Rows generated together, in the order in which they joined."""

    rows: list[DecodedText]

    def join(self, row: DecodedText) -> int:
        """Read the prompt of ``row`` and append its first token, which is returned."""

    def step(self) -> list[int]:
        """The next token of every row, in their order."""

    def leave(self, row: DecodedText) -> None:
        """Generate ``row`` no further."""


def decoder_of(model: Any) -> tuple[Decoder, Decision]:
    """The decoder for a causal model of Transformers in evaluation mode, and the reason:
    ``PaddedBatch`` where two texts in one batch get the same logits as each by itself."""
    try:
        with torch.inference_mode(), quiet_transformers():
            same_logits = _same_when_batched(model)
        problem = "its logits differ in a batch" if not same_logits else ""
    # Any error of a third-party architecture that is given a cache.
    except Exception as error:
        problem = f"its cache cannot be joined ({type(error).__name__})"
    if problem:
        because = f"tested on the model: {problem}, so each token reads its text again"
        return UncachedDecoder(model), Decision(SUBJECT, "in turns", because)
    because = "tested on the model: a text gets the same logits in a batch as by itself"
    return PaddedBatch(model), Decision(SUBJECT, "in one batch", because)


def token_chooser(causal_lm: Any, prompt: Sequence[int], seed: int, **settings: Any) -> ChooseToken:
    """The token choice that ``generate`` of Transformers makes for this prompt with these
    ``settings``, independent of the other rows: by the model's own generation settings, greedily or
    sampled with ``seed``."""
    captured: list[Any] = []

    def capture(model: Any, input_ids: Tensor, logits_processor: Any, **more: Any) -> Tensor:
        captured.append(logits_processor)
        return input_ids

    device = causal_lm.get_input_embeddings().weight.device
    ids = torch.tensor([list(prompt)], device=device)
    with torch.inference_mode(), quiet_transformers():
        # ``generate`` prepares a generation, of which no step is taken.
        causal_lm.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_length=None,
            min_length=0,
            num_beams=1,
            custom_generate=capture,
            **settings,
        )
    (processors,) = captured
    sampling = settings.get("do_sample")
    generator = torch.Generator(device=device).manual_seed(seed) if sampling else None

    def choose(written: Tensor, logits: Tensor) -> tuple[int, float]:
        logs = torch.log_softmax(processors(written, logits), dim=-1)
        if generator is None:
            token = int(logs.argmax(dim=-1))
        else:
            token = int(torch.multinomial(logs.exp(), num_samples=1, generator=generator))
        return token, float(logs[0, token])

    return choose


class PaddedBatch:
    """One left-padded batch: row r has its last token in the last column, and ``mask`` [B, L] marks
    the columns of each row."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows: list[DecodedText] = []
        self._cache: Any = None
        self._mask: Tensor | None = None
        parameters = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._has_position_ids = "position_ids" in parameters

    def join(self, row: DecodedText) -> int:
        from transformers import DynamicCache

        device = self.model.get_input_embeddings().weight.device
        ids = torch.tensor([row.prompt], device=device)
        mask = torch.ones_like(ids)
        # Without the model's configuration every layer keeps all positions, also those that a
        # sliding window hides: rows of different lengths then share their columns.
        cache: Any = DynamicCache()
        token = row.append_token(self._logits(ids, mask, torch.arange(ids.shape[1])[None], cache))
        if self._mask is None:
            self._cache, self._mask = cache, mask
        else:
            width = max(self._mask.shape[1], mask.shape[1])
            self._mask = torch.cat([_pad_left(self._mask, width), _pad_left(mask, width)])
            for cached, new in zip(self._cache.layers, cache.layers, strict=True):
                cached.keys = torch.cat([_pad_left(cached.keys, width), _pad_left(new.keys, width)])
                cached.values = torch.cat(
                    [_pad_left(cached.values, width), _pad_left(new.values, width)]
                )
        self.rows.append(row)
        return token

    def step(self) -> list[int]:
        assert self._mask is not None
        ids = torch.tensor([[row.written[-1]] for row in self.rows], device=self._mask.device)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        positions = self._mask.sum(dim=1, keepdim=True) - 1
        logits = self._logits(ids, self._mask, positions, self._cache)
        return [row.append_token(logits[place : place + 1]) for place, row in enumerate(self.rows)]

    def leave(self, row: DecodedText) -> None:
        remaining = [place for place, other in enumerate(self.rows) if other is not row]
        self.rows = [self.rows[place] for place in remaining]
        if not remaining:
            self._cache = self._mask = None
            return
        assert self._mask is not None
        indices = torch.tensor(remaining, device=self._mask.device)
        self._mask = self._mask[indices]
        # Drop columns that only the longest text had.
        first = int(self._mask.any(dim=0).int().argmax())
        self._mask = self._mask[:, first:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[indices][:, :, first:]
            layer.values = layer.values[indices][:, :, first:]

    def _logits(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        position_ids = {"position_ids": positions.to(ids.device)} if self._has_position_ids else {}
        with torch.inference_mode():
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                **position_ids,
                **self._last_only,
            )
        logits: Tensor = output.logits[:, -1]
        return logits


class UncachedDecoder:
    """Each row by itself; its whole text is read again for each token."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows: list[DecodedText] = []

    def join(self, row: DecodedText) -> int:
        token = self._next(row)
        self.rows.append(row)
        return token

    def step(self) -> list[int]:
        return [self._next(row) for row in self.rows]

    def leave(self, row: DecodedText) -> None:
        self.rows = [other for other in self.rows if other is not row]

    def _next(self, row: DecodedText) -> int:
        device = self.model.get_input_embeddings().weight.device
        ids = torch.tensor([row.ids], device=device)
        with torch.inference_mode():
            output = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return row.append_token(output.logits[:, -1])


def _pad_left(tensor: Tensor, width: int) -> Tensor:
    """Columns (the second dimension of a mask, the third of keys) added on the left."""
    missing = width - tensor.shape[1 if tensor.ndim == 2 else 2]
    padding = (missing, 0) if tensor.ndim == 2 else (0, 0, missing, 0)
    return torch.nn.functional.pad(tensor, padding)


def _same_when_batched(model: Any) -> bool:
    """Whether two texts that join one after the other get the same logits as each by itself."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False
    embeddings: Tensor = model.get_input_embeddings().weight
    token_ids = [int(n) for n in (torch.arange(1, 13) * 7 % int(embeddings.shape[0]))]
    logits_seen: tuple[list[Tensor], list[Tensor]] = [], []

    def recorder(recorded: list[Tensor]) -> ChooseToken:
        def choose(ids: Tensor, logits: Tensor) -> tuple[int, float]:
            recorded.append(logits[0])
            return token_ids[len(recorded)], 0.0

        return choose

    decoder = PaddedBatch(model)
    decoder.join(DecodedText(token_ids[:7], recorder(logits_seen[0])))
    decoder.step()
    decoder.join(DecodedText(token_ids[4:7], recorder(logits_seen[1])))
    decoder.step()
    decoder.leave(decoder.rows[0])
    decoder.step()
    for start, batched in zip((token_ids[:7], token_ids[4:7]), logits_seen, strict=True):
        ids = torch.tensor([start + token_ids[1 : len(batched)]], device=embeddings.device)
        logits_alone = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
        ).logits[0]
        last = logits_alone[-len(batched) :].float()
        if not torch.allclose(torch.stack(batched), last, rtol=1e-3, atol=1e-3):
            return False
    return True


class TextPieces:
    """The text of an answer during generation.

    ``decode`` turns all tokens so far into text. The answer ends before the first of the ``ends``.
    The pieces joined are the ``text``, stripped of white space. What may be the beginning of an
    end, half of a character or trailing white space is held back until it is known.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], ends: Sequence[str]) -> None:
        self._decode = decode
        self._ends = tuple(end for end in ends if end)
        self._tokens: list[int] = []
        self._shown = ""
        self.ended = False
        self.text = ""

    @property
    def tokens(self) -> int:
        """The number of generated tokens, including one that ends the answer."""
        return len(self._tokens)

    def add(self, token: int, *, last: bool = False) -> str:
        """The text that can be shown after ``token``. ``ended`` says whether an end was reached;
        ``last`` that no token follows."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        end_at = min((at for at in map(text.find, self._ends) if at >= 0), default=-1)
        self.ended = end_at >= 0
        if self.ended:
            return self._next_piece(text[:end_at], complete=True)
        return self._next_piece(text, complete=last)

    def finish(self) -> str:
        """The text held back, where the previous token was the last."""
        return self._next_piece(self._decode(self._tokens), complete=True) if not self.ended else ""

    def _next_piece(self, text: str, *, complete: bool) -> str:
        if not complete:
            text = text[: len(text) - self._held_back(text)].rstrip(REPLACEMENT_CHARACTER)
        text = text.strip()
        # A tokenizer may decode earlier tokens differently once later ones follow. Text that was
        # sent stays.
        if not text.startswith(self._shown):
            text = self._shown + text[len(self._shown) :]
        piece, self._shown = text[len(self._shown) :], text
        self.text = text
        return piece

    def _held_back(self, text: str) -> int:
        """How many trailing characters may begin one of the ends."""
        beginnings = (end[:size] for end in self._ends for size in range(1, len(end)))
        return max(
            (len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0
        )
