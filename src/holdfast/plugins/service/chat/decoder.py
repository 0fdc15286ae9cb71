"""Several texts that one model writes beside one another, a token of each at a step, and the pieces
of text that these tokens are (``Pieces``).

``PaddedBatch`` holds their keys and values in one batch that texts join and leave between any two
steps; ``Reread`` reads each text anew for every token, which any model can do. Which of them a
model gets is asked of the model itself (``decoder_of``).
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

WHAT = "conversations"
# A token, and the logarithm of its probability as it was drawn from.
Choose = Callable[[Tensor, Tensor], tuple[int, float]]
# What a decoder writes for bytes that are no character, or not yet one.
BROKEN = "\ufffd"


@dataclass(eq=False)
class DecodedText:
    """A text that is being written: its ``prompt``, the tokens ``written`` to it and the ``logs``
    of their probabilities; ``choose`` picks a token from ids [1, T] and logits [1, V]."""

    prompt: list[int]
    choose: Choose
    written: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.written

    def take(self, logits: Tensor) -> int:
        """Pick the next token from ``logits`` [1, V] and write it down."""
        ids = torch.tensor([self.ids], device=logits.device)
        token, log = self.choose(ids, logits.float())
        self.written.append(token)
        self.logs.append(log)
        return token


class Decoder(Protocol):
    """Rows that are written beside one another, in the order in which they joined."""

    rows: list[DecodedText]

    def join(self, row: DecodedText) -> int:
        """Read the prompt of ``row`` and write its first token, which is returned."""

    def step(self) -> list[int]:
        """The next token of every row, in their order."""

    def leave(self, row: DecodedText) -> None:
        """Write ``row`` no further."""


def decoder_of(plain: Any) -> tuple[Decoder, Decision]:
    """The decoder for a causal model of Transformers in evaluation mode, and why it is that one:
    ``Joined`` where two texts that it joins get the logits that each gets alone."""
    try:
        with torch.inference_mode(), quiet_transformers():
            same = _same_beside(plain)
        found = "its answers differ beside others" if not same else ""
    # Whatever a foreign architecture raises when its cache is given to it.
    except Exception as error:
        found = f"its cache cannot be joined ({type(error).__name__})"
    if found:
        because = f"asked of the model: {found}, so that each token reads its whole text again"
        return Reread(plain), Decision(WHAT, "in turns", because)
    because = "asked of the model: beside others a text gets the logits that it gets alone"
    return PaddedBatch(plain), Decision(WHAT, "in one batch", because)


def chooser(plain: Any, prompt: Sequence[int], seed: int, **settings: Any) -> Choose:
    """How ``generate`` of Transformers would pick each token for this prompt with these of its
    ``settings``, whatever stands beside it: by the model's own settings of generation, greedily or
    drawn by ``seed``."""
    held: list[Any] = []

    def hold(model: Any, input_ids: Tensor, logits_processor: Any, **more: Any) -> Tensor:
        held.append(logits_processor)
        return input_ids

    device = plain.get_input_embeddings().weight.device
    ids = torch.tensor([list(prompt)], device=device)
    with torch.inference_mode(), quiet_transformers():
        # Everything is made ready as for a generation, of which no step is taken.
        plain.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_length=None,
            min_length=0,
            num_beams=1,
            custom_generate=hold,
            **settings,
        )
    (processors,) = held
    drawn = settings.get("do_sample")
    own = torch.Generator(device=device).manual_seed(seed) if drawn else None

    def choose(written: Tensor, logits: Tensor) -> tuple[int, float]:
        logs = torch.log_softmax(processors(written, logits), dim=-1)
        if own is None:
            token = int(logs.argmax(dim=-1))
        else:
            token = int(torch.multinomial(logs.exp(), num_samples=1, generator=own))
        return token, float(logs[0, token])

    return choose


class PaddedBatch:
    """One batch, padded on the left: row r has its last token in the last column, and ``mask``
    [B, L] says which columns are its own."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.rows: list[DecodedText] = []
        self._cache: Any = None
        self._mask: Tensor | None = None
        takes = inspect.signature(plain.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self._has_places = "position_ids" in takes

    def join(self, row: DecodedText) -> int:
        from transformers import DynamicCache

        device = self.plain.get_input_embeddings().weight.device
        ids = torch.tensor([row.prompt], device=device)
        mask = torch.ones_like(ids)
        # Without the model's configuration every layer keeps all places, also those that a window
        # hides: rows of different lengths then share their columns.
        cache: Any = DynamicCache()
        token = row.take(self._logits(ids, mask, torch.arange(ids.shape[1])[None], cache))
        if self._mask is None:
            self._cache, self._mask = cache, mask
        else:
            wide = max(self._mask.shape[1], mask.shape[1])
            self._mask = torch.cat([_padded(self._mask, wide), _padded(mask, wide)])
            for held, new in zip(self._cache.layers, cache.layers, strict=True):
                held.keys = torch.cat([_padded(held.keys, wide), _padded(new.keys, wide)])
                held.values = torch.cat([_padded(held.values, wide), _padded(new.values, wide)])
        self.rows.append(row)
        return token

    def step(self) -> list[int]:
        assert self._mask is not None
        ids = torch.tensor([[row.written[-1]] for row in self.rows], device=self._mask.device)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        places = self._mask.sum(dim=1, keepdim=True) - 1
        logits = self._logits(ids, self._mask, places, self._cache)
        return [row.take(logits[place : place + 1]) for place, row in enumerate(self.rows)]

    def leave(self, row: DecodedText) -> None:
        kept = [place for place, one in enumerate(self.rows) if one is not row]
        self.rows = [self.rows[place] for place in kept]
        if not kept:
            self._cache = self._mask = None
            return
        assert self._mask is not None
        chosen = torch.tensor(kept, device=self._mask.device)
        self._mask = self._mask[chosen]
        # Columns that only the longest text had.
        first = int(self._mask.any(dim=0).int().argmax())
        self._mask = self._mask[:, first:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen][:, :, first:]
            layer.values = layer.values[chosen][:, :, first:]

    def _logits(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Any) -> Tensor:
        at = {"position_ids": places.to(ids.device)} if self._has_places else {}
        with torch.inference_mode():
            made = self.plain(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                **at,
                **self._last_only,
            )
        logits: Tensor = made.logits[:, -1]
        return logits


class Reread:
    """Each row by itself, all of its text read again for each token."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.rows: list[DecodedText] = []

    def join(self, row: DecodedText) -> int:
        token = self._next(row)
        self.rows.append(row)
        return token

    def step(self) -> list[int]:
        return [self._next(row) for row in self.rows]

    def leave(self, row: DecodedText) -> None:
        self.rows = [one for one in self.rows if one is not row]

    def _next(self, row: DecodedText) -> int:
        device = self.plain.get_input_embeddings().weight.device
        ids = torch.tensor([row.ids], device=device)
        with torch.inference_mode():
            made = self.plain(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return row.take(made.logits[:, -1])


def _padded(held: Tensor, wide: int) -> Tensor:
    """Columns (the second dimension of a mask, the third of keys) added on the left."""
    missing = wide - held.shape[1 if held.ndim == 2 else 2]
    sides = (missing, 0) if held.ndim == 2 else (0, 0, missing, 0)
    return torch.nn.functional.pad(held, sides)


def _same_beside(plain: Any) -> bool:
    """Whether logits of two texts that join one after the other are those of each alone."""
    if getattr(getattr(plain, "active_peft_config", None), "is_prompt_learning", False):
        return False
    table: Tensor = plain.get_input_embeddings().weight
    words = [int(n) for n in (torch.arange(1, 13) * 7 % int(table.shape[0]))]
    seen: tuple[list[Tensor], list[Tensor]] = [], []

    def watching(mine: list[Tensor]) -> Choose:
        def choose(ids: Tensor, logits: Tensor) -> tuple[int, float]:
            mine.append(logits[0])
            return words[len(mine)], 0.0

        return choose

    decoder = PaddedBatch(plain)
    decoder.join(DecodedText(words[:7], watching(seen[0])))
    decoder.step()
    decoder.join(DecodedText(words[4:7], watching(seen[1])))
    decoder.step()
    decoder.leave(decoder.rows[0])
    decoder.step()
    for start, found in zip((words[:7], words[4:7]), seen, strict=True):
        ids = torch.tensor([start + words[1 : len(found)]], device=table.device)
        alone = plain(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        last = alone[-len(found) :].float()
        if not torch.allclose(torch.stack(found), last, rtol=1e-3, atol=1e-3):
            return False
    return True


class Pieces:
    """The text of an answer while it is written.

    ``decode`` makes a text of all tokens so far; ``ends`` are texts at the first of which the
    answer ends, which belong to it no more. Joined, the pieces are the ``text``, without white
    space around it: what may be the beginning of an end, half of a character or white space at the
    end is held back until it is known.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], ends: Sequence[str]) -> None:
        self._decode = decode
        self._ends = tuple(end for end in ends if end)
        self._tokens: list[int] = []
        self._told = ""
        self.ended = False
        self.text = ""

    @property
    def tokens(self) -> int:
        """How many tokens were written, one that ends the answer among them."""
        return len(self._tokens)

    def add(self, token: int, *, last: bool = False) -> str:
        """What may be shown now that ``token`` was written. ``ended`` says whether an end stands
        there; ``last`` that nothing follows."""
        self._tokens.append(token)
        whole = self._decode(self._tokens)
        cut = min((at for at in map(whole.find, self._ends) if at >= 0), default=-1)
        self.ended = cut >= 0
        if self.ended:
            return self._tell(whole[:cut], whole=True)
        return self._tell(whole, whole=last)

    def finish(self) -> str:
        """What was held back, where the last token turned out to be the last."""
        return self._tell(self._decode(self._tokens), whole=True) if not self.ended else ""

    def _tell(self, ready: str, *, whole: bool) -> str:
        if not whole:
            ready = ready[: len(ready) - self._held(ready)].rstrip(BROKEN)
        ready = ready.strip()
        # A tokenizer may write earlier tokens otherwise once later ones follow. What was told
        # stays.
        if not ready.startswith(self._told):
            ready = self._told + ready[len(self._told) :]
        piece, self._told = ready[len(self._told) :], ready
        self.text = ready
        return piece

    def _held(self, ready: str) -> int:
        """How much of its end may begin what ends the answer."""
        begun = (end[:size] for end in self._ends for size in range(1, len(end)))
        return max((len(one) for one in begun if ready.endswith(one)), default=0)
