"""Explanations of generated text: how much less probable the text becomes when a word of the source
is left out.

A generative model has no mask token, so a word's tokens are left out. The baseline of integrated
gradients is the mean of all word embeddings, which represents no particular word.
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
    RowUnits,
    in_batches,
    integrated_gradients,
    split_units,
)
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


TOKENS_AT_ONCE = 4096
# Only the beginning of a longer output is explained.
MAX_TARGET_TOKENS = 64
MAX_SOURCE_WORDS = 3


class GeneratorModel(Protocol):
    """A generative model that returns the logits of a target."""

    def __call__(self, states: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Embedded sources [B, S, E], padded on the right, with their ``mask`` [B, S], and one
        ``target`` [T] for all of them → the logits [B, T, vocabulary] that predict it."""


@dataclass(frozen=True, eq=False)
class GeneratedRow:
    """A source (``ids`` [S], with the words that may be left out in ``row_units``) and the
    ``target`` [T] that the model generated; ``table`` embeds ids. ``log_probabilities`` caches the
    log probabilities [T] of the target's tokens by the words that were kept."""

    model: GeneratorModel
    table: Any
    ids: Ints
    row_units: RowUnits
    target: Ints
    target_words: tuple[str, ...]
    log_probabilities: dict[bytes, Floats] = field(default_factory=dict)

    def scores(self, keep: Bools) -> Floats:
        """The log probability [m] of the target with only ``keep`` [m, units] of the words."""
        import torch

        device, owner = self.table.weight.device, self.row_units.owner
        target = torch.as_tensor(self.target, device=device)

        def forward(some: Bools) -> Tensor:
            lines = [self.ids[(owner < 0) | line[owner]] for line in some]
            longest = max(1, *map(len, lines))
            ids = torch.zeros((len(lines), longest), dtype=torch.long)
            mask = torch.zeros((len(lines), longest), dtype=torch.long)
            for place, line in enumerate(lines):
                ids[place, : len(line)] = torch.as_tensor(line)
                mask[place, : len(line)] = 1
            states = self.table(ids.to(device))
            return self._target_log_probabilities(
                self.model(states, mask.to(device), target), target
            )

        size = max(1, TOKENS_AT_ONCE // max(1, len(self.ids) + len(self.target)))
        by_token = in_batches(forward, keep, size)
        self.log_probabilities.update(
            (line.tobytes(), one) for line, one in zip(keep, by_token, strict=True)
        )
        return np.asarray(by_token.sum(axis=1))

    def _target_log_probabilities(self, logits: Tensor, target: Tensor) -> Tensor:
        log_probabilities = logits.double().log_softmax(dim=-1)
        return log_probabilities.gather(2, target.expand(len(logits), -1).unsqueeze(-1))[..., 0]

    def gradients(self) -> Gradients:
        """Integrated gradients of the target's log probability, summed over each word."""
        import torch

        device = self.table.weight.device
        target = torch.as_tensor(self.target, device=device)
        with torch.no_grad():
            end = self.table(torch.as_tensor(self.ids, device=device)[None]).float()
            mean_embedding = self.table.weight.float().mean(dim=0)
            start = end.clone()
            start[:, np.flatnonzero(self.row_units.owner >= 0)] = mean_embedding

        def score(states: Tensor) -> Tensor:
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=device)
            return self._target_log_probabilities(self.model(states, mask, target), target).sum(
                dim=1
            )

        path = integrated_gradients(score, start, end)
        return path.of_units(self.row_units.owner, len(self.row_units.units))

    def by_target(self, source_words: Sequence[str]) -> list[dict[str, Any]]:
        """For each token of the target the source words that make it more probable, strongest
        first; only after leave-one-out was computed."""
        units = len(self.row_units.units)
        masks = ~np.eye(units, dtype=bool)
        full = self.log_probabilities.get(np.ones(units, dtype=bool).tobytes())
        if full is None or any(mask.tobytes() not in self.log_probabilities for mask in masks):
            return []
        falls = full - np.stack([self.log_probabilities[mask.tobytes()] for mask in masks])
        by_token = []
        for place, word in enumerate(self.target_words):
            best = np.argsort(-falls[:, place], kind="stable")[:MAX_SOURCE_WORDS]
            words = [
                {"word": source_words[unit], "value": round(float(falls[unit, place]), 4)}
                for unit in best
                if falls[unit, place] > 0
            ]
            by_token.append({"token": word, "from": words})
        return by_token


@dataclass(frozen=True, slots=True)
class GeneratorSource:
    """A ``text`` as a generative model reads it, of which the words ``inside`` (characters) may be
    left out. ``add_special``: whether the tokenizer adds special tokens. The text beyond
    ``max_tokens`` tokens is not read."""

    text: str
    inside: tuple[int, int]
    add_special: bool
    max_tokens: int


def read_generated_row(
    model: GeneratorModel, table: nn.Module, tokenizer: Any, source: GeneratorSource, answer: str
) -> GeneratedRow | None:
    """A source and the ``answer`` that a model generated for it; ``None`` for an answer without a
    token."""
    check_fast(tokenizer)
    encoded = tokenizer(
        source.text,
        add_special_tokens=source.add_special,
        return_offsets_mapping=True,
        truncation=True,
        max_length=source.max_tokens,
        verbose=False,
    )
    start, stop = source.inside
    offsets = [(a - start, b - start) for a, b in encoded["offset_mapping"]]
    sequences = [0 if start <= a < stop and b > a else None for a, b in encoded["offset_mapping"]]
    target = tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"][
        :MAX_TARGET_TOKENS
    ]
    if not target:
        return None
    words = tuple(tokenizer.decode([token]) for token in target)
    return GeneratedRow(
        model,
        table,
        np.asarray(encoded["input_ids"], dtype=np.int64),
        split_units([source.text[start:stop]], offsets, sequences),
        np.asarray(target, dtype=np.int64),
        words,
    )


def generation_cases(generated: GeneratedRow, answer: str) -> list[Case]:
    """The case of an output: the log probability of its tokens; its probability is the geometric
    mean of theirs."""
    tokens = len(generated.target)
    return [
        Case(
            answer,
            "log probability",
            MaskedScore(generated.scores, len(generated.row_units.units)),
            generated.gradients,
            lambda scores: np.exp(np.minimum(scores, 0.0) / tokens),
        )
    ]


def causal_model(plain: PreTrainedModel) -> GeneratorModel:
    """A decoder: the target follows each source, and is predicted at the tokens before."""
    import torch

    table = plain.get_input_embeddings()

    def forward(states: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        lengths = mask.sum(dim=1)
        target_embeddings = table(target).to(states.dtype)
        size, longest, wide = len(states), states.shape[1], states.shape[2]
        padding = torch.zeros((size, len(target), wide), dtype=states.dtype, device=states.device)
        embeddings = torch.cat([states, padding], dim=1)
        positions = lengths[:, None] + torch.arange(len(target), device=states.device)
        embeddings = embeddings.scatter(
            1, positions[..., None].expand(-1, -1, wide), target_embeddings.expand(size, -1, -1)
        )
        total = longest + len(target)
        steps = torch.arange(total, device=states.device)
        attention_mask = (steps < (lengths + len(target))[:, None]).long()
        logits = plain(
            inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False
        ).logits
        # A soft prompt's positions come first.
        logits = logits[:, logits.shape[1] - total :]
        predicting_positions = (
            (positions - 1).clamp(min=0)[..., None].expand(-1, -1, logits.shape[-1])
        )
        target_logits: Tensor = logits.gather(1, predicting_positions)
        return target_logits

    return forward


def seq2seq_model(plain: Any) -> GeneratorModel:
    """An encoder-decoder: the encoder reads the sources, the decoder the target."""

    def forward(states: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        labels = target[None].expand(len(states), -1)
        shifted = plain.prepare_decoder_input_ids_from_labels(labels=labels)
        output = plain(
            inputs_embeds=states, attention_mask=mask, decoder_input_ids=shifted, use_cache=False
        )
        logits: Tensor = output.logits
        return logits

    return forward
