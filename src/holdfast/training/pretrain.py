"""Continued pretraining of a model on one's own texts (2004.10964).

An encoder learns to predict masked tokens: of 15 % of the tokens, four in five are masked, one in
ten is replaced by another token, one in ten stays (1810.04805). A decoder learns to predict the
next token. Some texts are held out, and the weights of the evaluation with the lowest loss on them
are kept.
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

BATCH, LENGTH, EVALUATIONS, WARMUP, CLIP = 16, 128, 5, 0.06, 1.0
MASKED, HELD_OUT_SHARE, LEAST_HELD_OUT, MOST_HELD_OUT = 0.15, 0.05, 8, 200
LEAST_TEXTS = 40
# Transformers' losses ignore this label.
IGNORED = -100
# New weights learn from scratch, the others from what they know.
LEARNING_RATE, NEW_WEIGHTS_LEARNING_RATE = 5e-5, 1e-3


@dataclass(frozen=True, slots=True)
class PretrainingResult:
    """``steps`` updates were taken, and the checkpoint after ``best_step`` of them is kept.
    ``loss_before`` and ``loss_after`` are the mean losses per token of ``held_out`` texts, in
    nats; ``blocks`` is the number of training blocks."""

    steps: int
    best_step: int
    loss_before: float
    loss_after: float
    blocks: int
    held_out: int


def pretrain(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    masked: bool,
    steps: int,
    seed: int,
    is_new: Callable[[str], bool] = lambda _: False,
) -> PretrainingResult:
    """Train ``model`` (with a ``loss`` for ``labels``, as Transformers' have) on ``texts`` in
    place.

    ``is_new`` says by a weight's name whether it was newly initialized; such weights learn faster.
    The decision log has the loss on the held-out texts at each evaluation. Raises ``DataError`` for
    fewer than 40 texts.
    """
    blocks = blocks_of(tokenizer, texts)
    if len(blocks) < LEAST_TEXTS:
        rule = f"are too few: at least {LEAST_TEXTS} that can be read are needed, better thousands"
        remedy = "Give more texts, or leave them out."
        raise DataError("the texts to pretrain on", rule, len(blocks), remedy)
    order = generator(seed, "texts held out").permutation(len(blocks))
    held_out_count = min(max(round(HELD_OUT_SHARE * len(blocks)), LEAST_HELD_OUT), MOST_HELD_OUT)
    held_out, train_blocks = order[:held_out_count], order[held_out_count:]
    source = _Batches(model, tokenizer, blocks, masked, seed)
    optimizer, schedule = _optimizer(model, is_new, steps)
    evaluation_steps = {
        math.ceil(steps * (number + 1) / EVALUATIONS) for number in range(EVALUATIONS)
    }
    first_loss = best_loss = _evaluate(source, held_out, 0)
    best_step, best_weights = 0, _weights(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dropout of pretraining"))
        for step in range(steps):
            block_rows = _blocks_of_step(train_blocks, step, seed)
            loss = model(**source.batch(block_rows, "learned", step)).loss
            optimizer.zero_grad()
            if torch.isfinite(loss):
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
            schedule.step()
            if step + 1 in evaluation_steps:
                loss_now = _evaluate(source, held_out, step + 1)
                if loss_now < best_loss:
                    best_loss, best_step, best_weights = loss_now, step + 1, _weights(model)
    model.load_state_dict(best_weights)
    model.eval()
    return PretrainingResult(
        steps, best_step, first_loss, best_loss, len(train_blocks), len(held_out)
    )


@dataclass(frozen=True, slots=True)
class _Batches:
    """Batches of the blocks of the texts, as input of the model."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    blocks: Sequence[Sequence[int]]
    masked: bool
    seed: int

    def batch(self, positions: Ints, name: str, number: int) -> dict[str, torch.Tensor]:
        """These blocks on the model's device, masked with a seed from this name and number."""
        rows = [self.blocks[i] for i in positions]
        batch = collate(self.tokenizer, rows, self.masked, derive_seed(self.seed, name, number))
        device = next(self.model.parameters()).device
        return {key: value.to(device) for key, value in batch.items()}


def _evaluate(source: _Batches, held_out: Ints, step: int) -> float:
    """The mean loss per token of the held-out blocks, after ``step`` updates."""
    source.model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(held_out), BATCH):
            batch = source.batch(held_out[start : start + BATCH], "held", start)
            tokens = int((batch["labels"][:, 0 if source.masked else 1 :] != IGNORED).sum())
            if tokens:
                total += float(source.model(**batch).loss) * tokens
                count += tokens
    source.model.train()
    loss = total / max(count, 1)
    notify(Decision("pretraining", f"update {step}", f"{loss:.3f} nats per token, held out"))
    return loss


def _optimizer(
    model: torch.nn.Module, is_new: Callable[[str], bool], steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups: dict[float, list[torch.nn.Parameter]] = {
        LEARNING_RATE: [],
        NEW_WEIGHTS_LEARNING_RATE: [],
    }
    for name, parameter in model.named_parameters():
        groups[NEW_WEIGHTS_LEARNING_RATE if is_new(name) else LEARNING_RATE].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": some, "lr": rate} for rate, some in groups.items() if some], weight_decay=0.01
    )
    warm = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / warm, max(0.0, (steps - at) / max(1, steps - warm)))
    )
    return optimizer, schedule


def _blocks_of_step(train_blocks: Ints, step: int, seed: int) -> Ints:
    """The blocks of an update: each once per epoch, in a new order each time."""
    places = np.arange(step * BATCH, (step + 1) * BATCH)
    epochs, at = places // len(train_blocks), places % len(train_blocks)
    orders = {
        int(epoch): generator(seed, "blocks", int(epoch)).permutation(len(train_blocks))
        for epoch in np.unique(epochs)
    }
    return train_blocks[
        [orders[int(epoch)][place] for epoch, place in zip(epochs, at, strict=True)]
    ]


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: copy.deepcopy(value.detach()) for name, value in model.state_dict().items()}


def blocks_of(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int = LENGTH
) -> list[list[int]]:
    """The texts as token ids, including special tokens, in blocks of at most ``length``; texts that
    give no token are left out."""
    special_tokens = tokenizer.num_special_tokens_to_add()
    blocks: list[list[int]] = []
    for text in texts:
        # One call per text: a call for several does not say which parts belong to which.
        token_ids = tokenizer(
            text, truncation=True, max_length=length, return_overflowing_tokens=True
        )["input_ids"]
        parts = token_ids if token_ids and isinstance(token_ids[0], list) else [token_ids]
        blocks += [part for part in parts if len(part) > special_tokens]
    return blocks


def collate(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], masked: bool, seed: int
) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels`` [rows, longest]; a label of −100 is ignored.
    Masks are drawn from ``seed``."""
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    attention_mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    if not masked:
        # The padding token may be the end-of-text token, which must be learned.
        return {
            "input_ids": ids,
            "attention_mask": attention_mask,
            "labels": ids.masked_fill(attention_mask == 0, IGNORED),
        }
    from transformers import DataCollatorForLanguageModeling

    collator: Any = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED, seed=seed)
    features = [
        {"input_ids": i, "attention_mask": m} for i, m in zip(ids, attention_mask, strict=True)
    ]
    masked_batch = collator(features)
    return {key: masked_batch[key] for key in ("input_ids", "attention_mask", "labels")}
