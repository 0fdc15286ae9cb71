"""Continued pretraining: more of what a model was pretrained on, on texts of one's own
(2004.10964).

An encoder learns to say masked tokens: of 15 % of them, four in five are masked, one in ten is
another token, one in ten stays (1810.04805). A decoder learns to say the next one. Some texts are
held out, and the weights of the look at which these cost least are kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.core.seeds import derive_seed, generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.core.records import Ints

BATCH, LENGTH, LOOKS, WARMUP, CLIP = 16, 128, 5, 0.06, 1.0
MASKED, HELD, LEAST_HELD, MOST_HELD = 0.15, 0.05, 8, 200
LEAST_TEXTS = 40
# What Transformers' losses pass over.
IGNORED = -100
# What is new learns from nothing, the rest from what it knows.
RATE, RATE_OF_NEW = 5e-5, 1e-3


@dataclass(frozen=True, slots=True)
class Pretrained:
    """``steps`` updates were taken, and the state after ``kept`` of them is kept: ``before`` and
    ``after`` are the mean losses of a token of ``held`` texts, in nats; ``blocks`` were learned
    from."""

    steps: int
    kept: int
    before: float
    after: float
    blocks: int
    held: int


def pretrain(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    masked: bool,
    steps: int,
    seed: int,
    new: Callable[[str], bool] = lambda _: False,
) -> Pretrained:
    """Train ``model`` (with a ``loss`` for ``labels``, as Transformers' have) on ``texts`` in
    place.

    ``new`` says of a weight's name that it was drawn, and learns faster. The decision log says at
    each look what the texts that are held out lose. Raises ``DataError`` for fewer than 40 texts.
    """
    blocks = blocks_of(tokenizer, texts)
    if len(blocks) < LEAST_TEXTS:
        raise DataError(
            "the texts to pretrain on",
            f"are too few: {LEAST_TEXTS} that can be read are the least, and thousands are of use",
            len(blocks),
            "Give more texts, or leave them out.",
        )
    order = generator(seed, "texts held out").permutation(len(blocks))
    aside = min(max(round(HELD * len(blocks)), LEAST_HELD), MOST_HELD)
    held, learned = order[:aside], order[aside:]
    source = _Batches(model, tokenizer, blocks, masked, seed)
    optimizer, schedule = _optimizer(model, new, steps)
    looks = {math.ceil(steps * (look + 1) / LOOKS) for look in range(LOOKS)}
    first = best = _look(source, held, 0)
    kept, state = 0, _weights(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dropout of pretraining"))
        for step in range(steps):
            chosen = _drawn(learned, step, seed)
            loss = model(**source.batch(chosen, "learned", step)).loss
            optimizer.zero_grad()
            if torch.isfinite(loss):
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
            schedule.step()
            if step + 1 in looks:
                found = _look(source, held, step + 1)
                if found < best:
                    best, kept, state = found, step + 1, _weights(model)
    model.load_state_dict(state)
    model.eval()
    return Pretrained(steps, kept, first, best, len(learned), len(held))


@dataclass(frozen=True, slots=True)
class _Batches:
    """Batches of the blocks of the texts, as the model reads them."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    blocks: Sequence[Sequence[int]]
    masked: bool
    seed: int

    def batch(self, chosen: Ints, name: str, number: int) -> dict[str, torch.Tensor]:
        """These blocks on the model's device, masked by a seed of this name and number."""
        rows = [self.blocks[i] for i in chosen]
        made = collate(self.tokenizer, rows, self.masked, derive_seed(self.seed, name, number))
        device = next(self.model.parameters()).device
        return {key: value.to(device) for key, value in made.items()}


def _look(source: _Batches, held: Ints, step: int) -> float:
    """The mean loss of a token of the blocks that are held out, after ``step`` updates."""
    source.model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(held), BATCH):
            batch = source.batch(held[start : start + BATCH], "held", start)
            tokens = int((batch["labels"][:, 0 if source.masked else 1 :] != IGNORED).sum())
            if tokens:
                total += float(source.model(**batch).loss) * tokens
                count += tokens
    source.model.train()
    loss = total / max(count, 1)
    notify(Decision("pretraining", f"update {step}", f"{loss:.3f} nats a token held out"))
    return loss


def _optimizer(
    model: torch.nn.Module, new: Callable[[str], bool], steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups: dict[float, list[torch.nn.Parameter]] = {RATE: [], RATE_OF_NEW: []}
    for name, parameter in model.named_parameters():
        groups[RATE_OF_NEW if new(name) else RATE].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": some, "lr": rate} for rate, some in groups.items() if some], weight_decay=0.01
    )
    warm = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / warm, max(0.0, (steps - at) / max(1, steps - warm)))
    )
    return optimizer, schedule


def _drawn(learned: Ints, step: int, seed: int) -> Ints:
    """The blocks of an update: each once an epoch, in an order of its own."""
    places = np.arange(step * BATCH, (step + 1) * BATCH)
    epochs, at = places // len(learned), places % len(learned)
    orders = {
        int(epoch): generator(seed, "blocks", int(epoch)).permutation(len(learned))
        for epoch in np.unique(epochs)
    }
    return learned[[orders[int(epoch)][place] for epoch, place in zip(epochs, at, strict=True)]]


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: copy.deepcopy(value.detach()) for name, value in model.state_dict().items()}


def blocks_of(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int = LENGTH
) -> list[list[int]]:
    """The texts as token ids, special ones among them, in blocks of at most ``length``; texts of
    which nothing is read are left out."""
    edges = tokenizer.num_special_tokens_to_add()
    found: list[list[int]] = []
    for text in texts:
        # One call a text: of several, none says which are cut where.
        made = tokenizer(text, truncation=True, max_length=length, return_overflowing_tokens=True)[
            "input_ids"
        ]
        parts = made if made and isinstance(made[0], list) else [made]
        found += [part for part in parts if len(part) > edges]
    return found


def collate(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], masked: bool, seed: int
) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels`` [rows, longest]; a label of −100 is not
    asked. Masks are drawn from ``seed``."""
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    inside = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    if not masked:
        # The padding token may be one that ends a text, which is to be learned.
        return {
            "input_ids": ids,
            "attention_mask": inside,
            "labels": ids.masked_fill(inside == 0, IGNORED),
        }
    from transformers import DataCollatorForLanguageModeling

    collator: Any = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED, seed=seed)
    both = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids, inside, strict=True)]
    made = collator(both)
    return {key: made[key] for key in ("input_ids", "attention_mask", "labels")}
