"""Answers of generators: how much less likely each word of the source makes the text that the model
wrote, when it is left out.

A generator has no mask token, so a word's pieces are left out. Integrated gradients begin at the
mean of all word embeddings, which stands for no word in particular.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.analyses.explain.classifiers import check_fast
from holdfast.analyses.explain.masking import (
    Case,
    Gradients,
    MaskedScore,
    Parted,
    in_batches,
    integrated_gradients,
    parted,
)
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


TOKENS = 4096
# Of a longer answer the beginning is explained.
MOST_WRITTEN = 64
NAMED = 3


class GeneratorModel(Protocol):
    """How a generator is asked for the logits of a target."""

    def __call__(self, states: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Embedded sources [B, S, E], padded on the right, with their ``mask`` [B, S], and one
        ``target`` [T] for all of them → the logits [B, T, vocabulary] that it is read off."""


@dataclass(frozen=True, eq=False)
class GeneratedRow:
    """A source (``ids`` [S], with the words that may be left out in ``parted``) and the ``target``
    [T] that the model wrote; ``table`` embeds ids. ``seen`` keeps the log probabilities [T] of the
    target's tokens by the words that were left."""

    writer: GeneratorModel
    table: Any
    ids: Ints
    parted: Parted
    target: Ints
    target_words: tuple[str, ...]
    seen: dict[bytes, Floats] = field(default_factory=dict)

    def scores(self, kept: Bools) -> Floats:
        """The log probability [m] of the target with only ``kept`` [m, units] of the words."""
        import torch

        device, owner = self.table.weight.device, self.parted.owner
        target = torch.as_tensor(self.target, device=device)

        def ask(some: Bools) -> Tensor:
            lines = [self.ids[(owner < 0) | line[owner]] for line in some]
            longest = max(1, *map(len, lines))
            ids = torch.zeros((len(lines), longest), dtype=torch.long)
            mask = torch.zeros((len(lines), longest), dtype=torch.long)
            for place, line in enumerate(lines):
                ids[place, : len(line)] = torch.as_tensor(line)
                mask[place, : len(line)] = 1
            states = self.table(ids.to(device))
            return self._of_target(self.writer(states, mask.to(device), target), target)

        size = max(1, TOKENS // max(1, len(self.ids) + len(self.target)))
        by_token = in_batches(ask, kept, size)
        self.seen.update((line.tobytes(), one) for line, one in zip(kept, by_token, strict=True))
        return np.asarray(by_token.sum(axis=1))

    def _of_target(self, logits: Tensor, target: Tensor) -> Tensor:
        chances = logits.double().log_softmax(dim=-1)
        return chances.gather(2, target.expand(len(logits), -1).unsqueeze(-1))[..., 0]

    def gradients(self) -> Gradients:
        """Integrated gradients of the target's log probability, summed over each word."""
        import torch

        device = self.table.weight.device
        target = torch.as_tensor(self.target, device=device)
        with torch.no_grad():
            end = self.table(torch.as_tensor(self.ids, device=device)[None]).float()
            none = self.table.weight.float().mean(dim=0)
            start = end.clone()
            start[:, np.flatnonzero(self.parted.owner >= 0)] = none

        def score(states: Tensor) -> Tensor:
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=device)
            return self._of_target(self.writer(states, mask, target), target).sum(dim=1)

        path = integrated_gradients(score, start, end)
        return path.of_units(self.parted.owner, len(self.parted.units))

    def by_target(self, source_words: Sequence[str]) -> list[dict[str, Any]]:
        """For each token of the target the source words that make it likelier, the most first;
        after leave-one-out was asked."""
        units = len(self.parted.units)
        masks = ~np.eye(units, dtype=bool)
        whole = self.seen.get(np.ones(units, dtype=bool).tobytes())
        if whole is None or any(mask.tobytes() not in self.seen for mask in masks):
            return []
        falls = whole - np.stack([self.seen[mask.tobytes()] for mask in masks])
        named = []
        for place, word in enumerate(self.target_words):
            best = np.argsort(-falls[:, place], kind="stable")[:NAMED]
            most = [
                {"word": source_words[unit], "value": round(float(falls[unit, place]), 4)}
                for unit in best
                if falls[unit, place] > 0
            ]
            named.append({"token": word, "from": most})
        return named


@dataclass(frozen=True, slots=True)
class GeneratorSource:
    """A ``text`` as a generator reads it, of which the words ``inside`` (characters) may be left
    out. ``special``: whether the tokenizer adds its marks. Its end beyond ``longest`` tokens is not
    read."""

    text: str
    inside: tuple[int, int]
    special: bool
    longest: int


def written(
    writer: GeneratorModel, table: nn.Module, tokenizer: Any, source: GeneratorSource, answer: str
) -> GeneratedRow | None:
    """A source and the ``answer`` that a generator wrote to it; ``None`` for an answer without a
    token."""
    check_fast(tokenizer)
    encoded = tokenizer(
        source.text,
        add_special_tokens=source.special,
        return_offsets_mapping=True,
        truncation=True,
        max_length=source.longest,
        verbose=False,
    )
    start, stop = source.inside
    offsets = [(a - start, b - start) for a, b in encoded["offset_mapping"]]
    sequences = [0 if start <= a < stop and b > a else None for a, b in encoded["offset_mapping"]]
    target = tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"][:MOST_WRITTEN]
    if not target:
        return None
    words = tuple(tokenizer.decode([token]) for token in target)
    return GeneratedRow(
        writer,
        table,
        np.asarray(encoded["input_ids"], dtype=np.int64),
        parted([source.text[start:stop]], offsets, sequences),
        np.asarray(target, dtype=np.int64),
        words,
    )


def written_cases(asked: GeneratedRow, answer: str) -> list[Case]:
    """The case of an answer: the log probability of its tokens; the chance is the geometric mean of
    theirs."""
    tokens = len(asked.target)
    return [
        Case(
            answer,
            "log probability",
            MaskedScore(asked.scores, len(asked.parted.units)),
            asked.gradients,
            lambda scores: np.exp(np.minimum(scores, 0.0) / tokens),
        )
    ]


def causal_writer(plain: PreTrainedModel) -> GeneratorModel:
    """A decoder: the target stands right behind each source, and is read off the tokens before."""
    import torch

    table = plain.get_input_embeddings()

    def ask(states: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        lengths = mask.sum(dim=1)
        behind = table(target).to(states.dtype)
        size, longest, wide = len(states), states.shape[1], states.shape[2]
        room = torch.zeros((size, len(target), wide), dtype=states.dtype, device=states.device)
        whole = torch.cat([states, room], dim=1)
        places = lengths[:, None] + torch.arange(len(target), device=states.device)
        whole = whole.scatter(
            1, places[..., None].expand(-1, -1, wide), behind.expand(size, -1, -1)
        )
        total = longest + len(target)
        steps = torch.arange(total, device=states.device)
        seen = (steps < (lengths + len(target))[:, None]).long()
        logits = plain(inputs_embeds=whole, attention_mask=seen, use_cache=False).logits
        # A learnt prompt's own places come first.
        logits = logits[:, logits.shape[1] - total :]
        before = (places - 1).clamp(min=0)[..., None].expand(-1, -1, logits.shape[-1])
        found: Tensor = logits.gather(1, before)
        return found

    return ask


def pair_writer(plain: Any) -> GeneratorModel:
    """An encoder-decoder: the encoder reads the sources, the decoder the target."""

    def ask(states: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        labels = target[None].expand(len(states), -1)
        shifted = plain.prepare_decoder_input_ids_from_labels(labels=labels)
        found = plain(
            inputs_embeds=states, attention_mask=mask, decoder_input_ids=shifted, use_cache=False
        )
        logits: Tensor = found.logits
        return logits

    return ask
