"""Rows with some of their units taken away, through a classifier of texts or pictures, or a tagger.

A word is taken away by the tokenizer's mask token in place of each of its pieces, where there is
one: the other words keep their places, and what is left is also the start of integrated gradients,
so that both methods answer the same question. Without a mask token its pieces are left out. A
square of a picture is covered with the colour that the model's own processor takes for the mean (0
once it is normalised), which is also the start of integrated gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.explain.masking import (
    MOST,
    Case,
    Gradients,
    MaskedScore,
    Parted,
    Unit,
    chance_of_odds,
    in_batches,
    in_place_of,
    integrated_gradients,
    odds_case,
    parted,
)
from holdfast.contract.predictions import Bools
from holdfast.core.errors import ModelError
from holdfast.core.records import Floats, Ints, log_sum_exp
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.models.loading.tokenizer import beginnings
from holdfast.tasks.classes.encoding import TextModel
from holdfast.tasks.images.losses import VisionModel
from holdfast.tasks.images.pixels import PixelTensors

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

    @property
    def at_once(self) -> int:
        """How many forms of the row are passed together."""
        return max(1, TOKENS // max(1, len(self.ids)))


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

    @property
    def differentiable(self) -> bool:
        """Only a saved model has its word embeddings in reach, and what stands beside a text is not
        differentiated."""
        return self.beside is same and hasattr(self.model.network, "model")

    def outputs(self, kept: Bools) -> Floats:
        """The outputs [m, classes] of the row with only ``kept`` [m, units] of its words."""
        tokenizer = self.model.tokenizer
        mask, pad = tokenizer.mask_token_id, int(tokenizer.pad_token_id or 0)

        def ask(some: Bools) -> Tensor:
            return self.model.network(**lessened(self.read, some, mask, pad)).float()

        return self.beside(in_batches(ask, kept, self.read.at_once))

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

        return integrated_gradients(scored, start, end).of_units(read.parted.owner, read.words)


def class_cases(asked: TextQuery, target: int | None = None) -> list[Case]:
    """The case of the answer of one class, the likeliest or ``target``; see ``odds_case``."""
    gradients = asked.gradients if asked.differentiable else None
    classes = asked.model.classes
    return [odds_case(asked.outputs, asked.read.words, classes, gradients, target)]


def label_cases(asked: TextQuery) -> list[Case]:
    """A case for each label that a row of several is given, at most ``MOST_TARGETS`` of the surest;
    of a row that is given none, for the likeliest."""
    outputs = asked.outputs(np.ones((1, asked.read.words), dtype=bool))[0]
    given = [int(place) for place in np.argsort(-outputs, kind="stable") if outputs[place] > 0]
    return [_one_output(asked, p, "log-odds") for p in given[:MOST_TARGETS] or [outputs.argmax()]]


def number_cases(asked: TextQuery) -> list[Case]:
    """The case of an answer that is a number, in the user's unit."""
    return [_one_output(asked, 0, "output")]


def _one_output(asked: TextQuery, place: int, measure: str) -> Case:
    def ask(kept: Bools) -> Floats:
        return np.asarray(asked.outputs(kept)[:, place], dtype=np.float64)

    def gradients() -> Gradients:
        return asked.gradients(lambda found: found[:, place])

    odds = measure == "log-odds"
    return Case(
        asked.model.classes[place] if odds else "",
        measure,
        MaskedScore(ask, asked.read.words),
        gradients if asked.differentiable else None,
        chance_of_odds if odds else None,
    )


@dataclass(frozen=True, eq=False)
class Sentence:
    """The ``words`` of a sentence as a tagger reads them: ``firsts`` [read words] is the first
    piece of each, which carries its tag."""

    model: TextModel
    words: tuple[str, ...]
    read: EncodedRow
    firsts: Ints

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def logits(self, kept: Bools) -> Floats:
        """The logits [m, read words, tags] with only ``kept`` [m, units] of the words."""
        tokenizer = self.model.tokenizer
        mask = tokenizer.mask_token_id
        # Left out, a word would have no place for its own tag.
        mask = mask if mask is not None else tokenizer.unk_token_id

        def ask(some: Bools) -> Tensor:
            found = self.model.network(**lessened(self.read, some, mask, 0))
            return self.at_words(found, self.firsts).float()

        return in_batches(ask, kept, self.read.at_once)

    def at_words(self, found: Tensor, firsts: Ints) -> Tensor:
        """A network's outputs [m, places, tags] at these pieces."""
        # A learnt prompt stands before the pieces.
        own = found[:, found.shape[1] - len(self.read.ids) :]
        return own[:, firsts.tolist()]


def read_sentence(model: TextModel, words: Sequence[str]) -> Sentence:
    """Tokenise one sentence as the tagger is asked with it."""
    tokenizer = check_fast(model.tokenizer)
    encoded = tokenizer(
        [list(words[: model.max_length])],
        is_split_into_words=True,
        truncation=True,
        max_length=model.max_length,
        padding=False,
    )
    of_word = np.array([-1 if word is None else word for word in encoded.word_ids(0)])
    read, firsts = np.unique(of_word, return_index=True)
    firsts, read = firsts[read >= 0], read[read >= 0]
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    joined = max(1, -(-len(read) // MOST))
    unit_of = np.full(len(words) + 1, -1, dtype=np.int64)
    unit_of[read] = np.arange(len(read)) // joined
    units = []
    for one in range(-(-len(read) // joined)):
        inside = np.flatnonzero(unit_of[:-1] == one)
        last = inside[-1]
        units.append(Unit(0, int(starts[inside[0]]), int(starts[last]) + len(words[last])))
    owner = np.where(of_word >= 0, unit_of[of_word], -1)
    types = encoded.get("token_type_ids")
    found = EncodedRow(
        np.asarray(encoded["input_ids"][0], dtype=np.int64),
        None if types is None else np.asarray(types[0], dtype=np.int64),
        Parted(tuple(units), owner, joined, len(words) - len(read)),
    )
    return Sentence(model, tuple(words), found, firsts)


def tag_cases(sentence: Sentence) -> list[Case]:
    """The case of a sentence's entities: the mean log probability of the tags of the words that are
    tagged as part of one; of a sentence without one, of all words."""
    names = sentence.model.classes
    units = sentence.read.words
    logits = sentence.logits(np.ones((1, units), dtype=bool))[0]
    tags = logits.argmax(axis=1)
    inside = np.flatnonzero([names[tag] != OUTSIDE for tag in tags])
    watched = inside if len(inside) else np.arange(len(tags))
    chosen = tags[watched]

    def ask(kept: Bools) -> Floats:
        wide = sentence.logits(kept)[:, watched].astype(np.float64)
        own = np.take_along_axis(wide, np.broadcast_to(chosen, wide.shape[:2])[..., None], axis=2)
        return np.asarray((own[..., 0] - log_sum_exp(wide)).mean(axis=1))

    def score(found: Tensor) -> Tensor:
        import torch

        at = sentence.at_words(found, sentence.firsts[watched]).log_softmax(dim=-1)
        places = torch.as_tensor(chosen).expand(len(at), -1).unsqueeze(-1)
        return at.gather(2, places)[..., 0].mean(dim=1)

    asked = TextQuery(sentence.model, sentence.read)
    can = hasattr(sentence.model.network, "model")
    gradients = (lambda: asked.gradients(score)) if can else None
    shown = sorted({names[tag].partition("-")[2] or names[tag] for tag in chosen})
    return [
        Case(
            ", ".join(shown) if len(inside) else OUTSIDE,
            "log probability",
            MaskedScore(ask, units),
            gradients,
            lambda scores: np.exp(np.minimum(scores, 0.0)),
        )
    ]


SIDE = 8
# Values of pixels that are passed together.
TOGETHER = 1 << 22


@dataclass(frozen=True, eq=False)
class Covered:
    """A picture as the model reads it (``pixels`` [1, channels, H, W]) in ``down`` × ``across``
    squares, row by row."""

    model: VisionModel
    pixels: Tensor
    down: int
    across: int

    @property
    def owner(self) -> Ints:
        """The square of each pixel [H, W]."""
        high, wide = self.pixels.shape[-2:]
        rows = np.arange(high) * self.down // high
        columns = np.arange(wide) * self.across // wide
        return np.asarray(rows[:, None] * self.across + columns[None, :])

    def logits(self, kept: Bools) -> Floats:
        """The logits [m, classes] with only ``kept`` [m, squares] to be seen."""
        import torch

        owner = self.owner

        def ask(some: Bools) -> Tensor:
            seen = torch.from_numpy(some[:, owner]).unsqueeze(1)
            return self.model.network(pixel_values=self.pixels * seen).float()

        return in_batches(ask, kept, max(1, TOGETHER // self.pixels.numel()))

    def gradients(self, score: Callable[[Tensor], Tensor]) -> Gradients:
        """Integrated gradients of ``score`` (of the network's outputs) from the empty picture,
        summed over each square."""
        import torch

        def scored(pixels: Tensor) -> Tensor:
            return score(self.model.network(pixel_values=pixels).double())

        path = integrated_gradients(scored, torch.zeros_like(self.pixels), self.pixels)
        return path.of_units(self.owner.ravel(), self.down * self.across, over=1)


def covered(model: VisionModel, path: str, side: int = SIDE) -> Covered:
    """The picture at ``path`` as the model reads it, in ``side`` × ``side`` squares (fewer where it
    has fewer pixels)."""
    pixels = PixelTensors([path], model.processor, model.channels)([0])
    high, wide = int(pixels.shape[-2]), int(pixels.shape[-1])
    return Covered(model, pixels, min(side, high), min(side, wide))


def picture_cases(seen: Covered) -> list[Case]:
    """The case of the picture's class: its log-odds against all others."""
    squares = seen.down * seen.across
    return [odds_case(seen.logits, squares, seen.model.classes, seen.gradients)]
