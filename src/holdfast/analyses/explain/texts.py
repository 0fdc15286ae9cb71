"""Texts with some of their words taken away, through a text classifier.

A word is taken away by the tokenizer's mask token in place of each of its pieces, where there is
one: the other words keep their places, and what is left is also the start of integrated gradients,
so that both methods answer the same question. Without a mask token its pieces are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.explain.masking import (
    Case,
    Gradients,
    MaskedScore,
    chance_of_odds,
    in_place_of,
    integrated_gradients,
    log_odds,
    sums,
)
from holdfast.analyses.explain.units import Parted, parted
from holdfast.contract.predictions import Bools
from holdfast.core.errors import ModelError
from holdfast.core.records import Floats, Ints
from holdfast.models.loading.tokenizer import beginnings
from holdfast.tasks.classes.encoding import TextModel

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


TOKENS = 2048
# Of a row with many labels those that are surest are explained.
MOST_TARGETS = 3
Layer = Callable[[Floats], Floats]


def same(logits: Floats) -> Floats:
    """A network's outputs as they are: what stands beside a text adds nothing."""
    return logits


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """One row as a model reads it: ``ids`` [T], ``types`` [T] where it has segments; ``parted``
    says which pieces are of which word."""

    ids: Ints
    types: Ints | None
    parted: Parted

    @property
    def words(self) -> int:
        return len(self.parted.units)


def read_row(model: TextModel, texts: Sequence[str]) -> EncodedRow:
    """Tokenise one row as the model is asked with it; ``texts`` are one text, or a pair.

    Raises ``ModelError`` for a tokenizer that does not tell which pieces are of which word.
    """
    tokenizer = check_fast(model.tokenizer)
    given = [beginnings(tokenizer, [text], model.max_length)[0] for text in texts]
    encoded = tokenizer(
        *given,
        truncation="longest_first" if len(given) > 1 else True,
        max_length=model.max_length,
        padding=False,
        return_offsets_mapping=True,
    )
    found = parted(texts, encoded["offset_mapping"], encoded.sequence_ids(0))
    types = encoded.get("token_type_ids")
    return EncodedRow(
        np.asarray(encoded["input_ids"], dtype=np.int64),
        None if types is None else np.asarray(types, dtype=np.int64),
        found,
    )


def check_fast(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, if it tells the places of its pieces."""
    if not tokenizer.is_fast:
        raise ModelError(
            "the model",
            "has a tokenizer that does not tell which pieces are of which word",
            type(tokenizer).__name__,
            "Train with a model that has a tokenizer.json.",
        )
    return tokenizer


def lessened(read: EncodedRow, kept: Bools, mask: int | None, pad: int) -> dict[str, Any]:
    """The batch of a row with only ``kept`` [m, units] of its words: each piece of the others is
    ``mask``, or left out where that is ``None`` (the rest is padded on the right with ``pad``)."""
    import torch

    owner = read.parted.owner
    gone = np.zeros((len(kept), len(owner)), dtype=bool)
    inside = owner >= 0
    gone[:, inside] = ~kept[:, owner[inside]]
    ids = np.broadcast_to(read.ids, gone.shape)
    types = None if read.types is None else np.broadcast_to(read.types, gone.shape)
    there = np.ones(gone.shape, dtype=bool)
    if mask is not None:
        ids = np.where(gone, mask, ids)
    else:
        # Those that stay, in their order, then the gaps.
        order = np.argsort(gone, axis=1, kind="stable")
        there = ~np.take_along_axis(gone, order, axis=1)
        longest = max(1, int(there.sum(axis=1).max()))
        order, there = order[:, :longest], there[:, :longest]
        ids = np.where(there, np.take_along_axis(ids, order, axis=1), pad)
        if types is not None:
            types = np.where(there, np.take_along_axis(types, order, axis=1), 0)
    batch = {
        "input_ids": torch.tensor(np.ascontiguousarray(ids), dtype=torch.long),
        "attention_mask": torch.tensor(there.astype(np.int64)),
    }
    if types is not None:
        batch["token_type_ids"] = torch.tensor(np.ascontiguousarray(types), dtype=torch.long)
    return batch


@dataclass(frozen=True, eq=False)
class TextQuery:
    """A row, the model that is asked, and ``beside``: what the columns beside the text make of the
    outputs [m, classes]."""

    model: TextModel
    read: EncodedRow
    beside: Layer = same

    def outputs(self, kept: Bools) -> Floats:
        """The outputs [m, classes] of the row with only ``kept`` [m, units] of its words."""
        return self.beside(self.raw(kept))

    def raw(self, kept: Bools) -> Floats:
        import torch

        tokenizer = self.model.tokenizer
        size = max(1, TOKENS // max(1, len(self.read.ids)))
        parts = []
        with torch.inference_mode():
            for start in range(0, len(kept), size):
                batch = lessened(
                    self.read,
                    kept[start : start + size],
                    tokenizer.mask_token_id,
                    int(tokenizer.pad_token_id or 0),
                )
                parts.append(self.model.network(**batch).float().numpy())
        return np.concatenate(parts)

    def gradients(self, score: Callable[[Tensor], Tensor]) -> Gradients:
        """Integrated gradients of ``score`` (of the network's outputs) from all words masked to the
        row, summed over the pieces of each word."""
        import torch

        network = self.model.network
        table: Any = network.model.get_input_embeddings()  # type: ignore[attr-defined]
        tokenizer, read = self.model.tokenizer, self.read
        everything = np.array([np.zeros(read.words), np.ones(read.words)], dtype=bool)
        mask = tokenizer.mask_token_id
        start_mask = mask if mask is not None else tokenizer.pad_token_id
        batch = lessened(read, everything, start_mask, 0)
        ids = batch.pop("input_ids")
        with torch.no_grad():
            start, end = table(ids).float().split(1)

        def scored(states: Tensor) -> Tensor:
            size = len(states)
            beside = {name: value[:1].expand(size, -1) for name, value in batch.items()}
            with in_place_of(table, states):
                # The ids themselves are read by some for their positions.
                found = network(input_ids=ids[1:].expand(size, -1), **beside)
            return score(found.double())

        path = integrated_gradients(scored, start, end)
        pieces = path.values.sum(dim=-1)[0].double().numpy()
        return Gradients(sums(pieces, read.parted.owner, read.words), path.gap, path.passes)


def class_cases(asked: TextQuery, target: int | None = None) -> list[Case]:
    """The case of the answer of one class: the log-odds of the likeliest, or of ``target``, against
    all others, which unlike a probability does not stand still where the model is sure."""
    outputs = asked.outputs(_everything(asked))[0]
    place = int(outputs.argmax()) if target is None else target

    def ask(kept: Bools) -> Floats:
        return log_odds(asked.outputs(kept), place)

    def score(found: Tensor) -> Tensor:
        import torch

        others = torch.cat([found[:, :place], found[:, place + 1 :]], dim=1)
        return found[:, place] - torch.logsumexp(others, dim=1)

    return [
        Case(
            asked.model.classes[place],
            "log-odds",
            MaskedScore(ask, asked.read.words),
            _gradients(asked, score),
            chance_of_odds,
        )
    ]


def label_cases(asked: TextQuery) -> list[Case]:
    """A case for each label that a row of several is given, at most ``MOST_TARGETS`` of the surest;
    of a row that is given none, for the likeliest."""
    outputs = asked.outputs(_everything(asked))[0]
    given = [int(place) for place in np.argsort(-outputs, kind="stable") if outputs[place] > 0]
    return [_one_output(asked, p, "log-odds") for p in given[:MOST_TARGETS] or [outputs.argmax()]]


def number_cases(asked: TextQuery) -> list[Case]:
    """The case of an answer that is a number, in the user's unit."""
    return [_one_output(asked, 0, "output")]


def _one_output(asked: TextQuery, place: int, measure: str) -> Case:
    def ask(kept: Bools) -> Floats:
        return np.asarray(asked.outputs(kept)[:, place], dtype=np.float64)

    odds = measure == "log-odds"
    target = asked.model.classes[place] if odds else ""
    return Case(
        target,
        measure,
        MaskedScore(ask, asked.read.words),
        _gradients(asked, lambda found: found[:, place]),
        chance_of_odds if odds else None,
    )


def _everything(asked: TextQuery) -> Bools:
    return np.ones((1, asked.read.words), dtype=bool)


def _gradients(
    asked: TextQuery, score: Callable[[Tensor], Tensor]
) -> Callable[[], Gradients] | None:
    """Only a saved model has its word embeddings in reach, and what stands beside a text is not
    differentiated."""
    if asked.beside is not same or not hasattr(asked.model.network, "model"):
        return None
    return lambda: asked.gradients(score)
