"""Predictions for rows with some units removed, by a text classifier, image classifier or tagger.

A word is removed by replacing each of its tokens with the mask token, if there is one: the other
words keep their positions. The fully masked row is also the baseline of integrated gradients, so
that both methods explain the same difference. Without a mask token the tokens are left out. A
square of an image is covered with the mean colour of the model's own processor (0 after
normalisation), which is also the baseline of integrated gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.explain.masking import (
    MAX_UNITS,
    Case,
    Gradients,
    MaskedScore,
    RowUnits,
    Unit,
    in_batches,
    integrated_gradients,
    odds_case,
    probability_of_log_odds,
    replaced_embeddings,
    split_units,
)
from holdfast.contract.predictions import Bools
from holdfast.core.errors import ModelError
from holdfast.core.records import Floats, Ints, log_sum_exp
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.models.loading.tokenizer import text_beginnings
from holdfast.tasks.classes.encoding import TextModel
from holdfast.tasks.images.losses import VisionModel
from holdfast.tasks.images.pixels import PixelTensors

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

TOKENS_AT_ONCE = 2048
# Of a row with many labels those with the highest log-odds are explained.
MAX_TARGETS = 3
Layer = Callable[[Floats], Floats]


def identity(logits: Floats) -> Floats:
    """A network's outputs unchanged: there are no other columns."""
    return logits


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedRow:
    """One row as a model reads it: ``ids`` [T], ``types`` [T] if it has segments; ``row_units``
    says which tokens belong to which word."""

    ids: Ints
    types: Ints | None
    row_units: RowUnits

    @property
    def words(self) -> int:
        return len(self.row_units.units)

    @property
    def at_once(self) -> int:
        """How many forms of the row are scored in one batch."""
        return max(1, TOKENS_AT_ONCE // max(1, len(self.ids)))


def read_row(model: TextModel, texts: Sequence[str]) -> TokenizedRow:
    """Tokenize one row as the model does; ``texts`` are one text, or a pair.

    Raises ``ModelError`` for a tokenizer that does not report which tokens belong to which word.
    """
    tokenizer = check_fast(model.tokenizer)
    beginnings_of_texts = [
        text_beginnings(tokenizer, [text], model.max_length)[0] for text in texts
    ]
    encoded = tokenizer(
        *beginnings_of_texts,
        truncation="longest_first" if len(beginnings_of_texts) > 1 else True,
        max_length=model.max_length,
        padding=False,
        return_offsets_mapping=True,
    )
    row_units = split_units(texts, encoded["offset_mapping"], encoded.sequence_ids(0))
    types = encoded.get("token_type_ids")
    return TokenizedRow(
        np.asarray(encoded["input_ids"], dtype=np.int64),
        None if types is None else np.asarray(types, dtype=np.int64),
        row_units,
    )


def check_fast(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, if it reports the positions of its tokens."""
    if not tokenizer.is_fast:
        rule = "has a tokenizer that does not report which tokens belong to which word"
        remedy = "Train with a model that has a tokenizer.json."
        raise ModelError("the model", rule, type(tokenizer).__name__, remedy)
    return tokenizer


def masked_batch(
    read: TokenizedRow, keep: Bools, mask_id: int | None, pad_id: int
) -> dict[str, Any]:
    """The batch of a row with only ``keep`` [m, units] of its words: each token of the others is
    ``mask_id``, or left out if that is ``None`` (the rest is padded on the right with
    ``pad_id``)."""
    import torch

    owner = read.row_units.owner
    removed = np.zeros((len(keep), len(owner)), dtype=bool)
    inside = owner >= 0
    removed[:, inside] = ~keep[:, owner[inside]]
    ids = np.broadcast_to(read.ids, removed.shape)
    types = None if read.types is None else np.broadcast_to(read.types, removed.shape)
    attention = np.ones(removed.shape, dtype=bool)
    if mask_id is not None:
        ids = np.where(removed, mask_id, ids)
    else:
        # The kept tokens in their order, then padding.
        order = np.argsort(removed, axis=1, kind="stable")
        attention = ~np.take_along_axis(removed, order, axis=1)
        longest = max(1, int(attention.sum(axis=1).max()))
        order, attention = order[:, :longest], attention[:, :longest]
        ids = np.where(attention, np.take_along_axis(ids, order, axis=1), pad_id)
        if types is not None:
            types = np.where(attention, np.take_along_axis(types, order, axis=1), 0)
    batch = {
        "input_ids": torch.tensor(np.ascontiguousarray(ids), dtype=torch.long),
        "attention_mask": torch.tensor(attention.astype(np.int64)),
    }
    if types is not None:
        batch["token_type_ids"] = torch.tensor(np.ascontiguousarray(types), dtype=torch.long)
    return batch


@dataclass(frozen=True, eq=False)
class TextQuery:
    """A row, the model that predicts it, and ``adjust_outputs``: the effect of the other columns on
    the outputs [m, classes]."""

    model: TextModel
    read: TokenizedRow
    adjust_outputs: Layer = identity

    @property
    def differentiable(self) -> bool:
        """Whether gradients are available: only a saved model gives access to its word embeddings,
        and the effect of other columns is not differentiated."""
        return self.adjust_outputs is identity and hasattr(self.model.network, "model")

    def outputs(self, keep: Bools) -> Floats:
        """The outputs [m, classes] of the row with only ``keep`` [m, units] of its words."""
        tokenizer = self.model.tokenizer
        mask_id, pad_id = tokenizer.mask_token_id, int(tokenizer.pad_token_id or 0)

        def forward(some: Bools) -> Tensor:
            return self.model.network(**masked_batch(self.read, some, mask_id, pad_id)).float()

        return self.adjust_outputs(in_batches(forward, keep, self.read.at_once))

    def gradients(self, score: Callable[[Tensor], Tensor]) -> Gradients:
        """Integrated gradients of ``score`` (of the network's outputs) from all words masked to the
        row, summed over the pieces of each word."""
        import torch

        network = self.model.network
        table: Any = network.model.get_input_embeddings()  # type: ignore[attr-defined]
        tokenizer, read = self.model.tokenizer, self.read
        none_and_all = np.array([np.zeros(read.words), np.ones(read.words)], dtype=bool)
        mask_id = tokenizer.mask_token_id
        start_id = mask_id if mask_id is not None else tokenizer.pad_token_id
        batch = masked_batch(read, none_and_all, start_id, 0)
        ids = batch.pop("input_ids")
        with torch.no_grad():
            start, end = table(ids).float().split(1)

        def score_states(states: Tensor) -> Tensor:
            size = len(states)
            inputs = {name: value[:1].expand(size, -1) for name, value in batch.items()}
            with replaced_embeddings(table, states):
                # Some networks compute positions from the ids.
                output = network(input_ids=ids[1:].expand(size, -1), **inputs)
            return score(output.double())

        return integrated_gradients(score_states, start, end).of_units(
            read.row_units.owner, read.words
        )


def class_cases(query: TextQuery) -> list[Case]:
    """The case of the most probable class; see ``odds_case``."""
    gradients = query.gradients if query.differentiable else None
    classes = query.model.classes
    return [odds_case(query.outputs, query.read.words, classes, gradients)]


def label_cases(query: TextQuery) -> list[Case]:
    """A case for each predicted label of a row, at most the ``MAX_TARGETS`` of highest log-odds;
    for a row without a predicted label, its most probable one."""
    outputs = query.outputs(np.ones((1, query.read.words), dtype=bool))[0]
    predicted = [int(place) for place in np.argsort(-outputs, kind="stable") if outputs[place] > 0]
    return [
        _one_output(query, p, "log-odds") for p in predicted[:MAX_TARGETS] or [outputs.argmax()]
    ]


def number_cases(query: TextQuery) -> list[Case]:
    """The case of a predicted number, in the user's unit."""
    return [_one_output(query, 0, "output")]


def _one_output(query: TextQuery, place: int, measure: str) -> Case:
    def score(keep: Bools) -> Floats:
        return np.asarray(query.outputs(keep)[:, place], dtype=np.float64)

    def gradients() -> Gradients:
        return query.gradients(lambda found: found[:, place])

    odds = measure == "log-odds"
    return Case(
        query.model.classes[place] if odds else "",
        measure,
        MaskedScore(score, query.read.words),
        gradients if query.differentiable else None,
        probability_of_log_odds if odds else None,
    )


@dataclass(frozen=True, eq=False)
class Sentence:
    """The ``words`` of a sentence as a tagger reads them: ``firsts`` [read words] is the first
    token of each, which carries its tag."""

    model: TextModel
    words: tuple[str, ...]
    read: TokenizedRow
    firsts: Ints

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def logits(self, keep: Bools) -> Floats:
        """The logits [m, read words, tags] with only ``keep`` [m, units] of the words."""
        tokenizer = self.model.tokenizer
        mask_id = tokenizer.mask_token_id
        # A word that is left out would have no position for its own tag.
        mask_id = mask_id if mask_id is not None else tokenizer.unk_token_id

        def forward(some: Bools) -> Tensor:
            output = self.model.network(**masked_batch(self.read, some, mask_id, 0))
            return self.at_words(output, self.firsts).float()

        return in_batches(forward, keep, self.read.at_once)

    def at_words(self, output: Tensor, firsts: Ints) -> Tensor:
        """A network's outputs [m, places, tags] at these tokens."""
        # A soft prompt comes before the tokens.
        piece_output = output[:, output.shape[1] - len(self.read.ids) :]
        return piece_output[:, firsts.tolist()]


def read_sentence(model: TextModel, words: Sequence[str]) -> Sentence:
    """Tokenize one sentence as the tagger does."""
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
    words_per_unit = max(1, -(-len(read) // MAX_UNITS))
    unit_of = np.full(len(words) + 1, -1, dtype=np.int64)
    unit_of[read] = np.arange(len(read)) // words_per_unit
    units = []
    for one in range(-(-len(read) // words_per_unit)):
        inside = np.flatnonzero(unit_of[:-1] == one)
        last = inside[-1]
        units.append(Unit(0, int(starts[inside[0]]), int(starts[last]) + len(words[last])))
    owner = np.where(of_word >= 0, unit_of[of_word], -1)
    types = encoded.get("token_type_ids")
    tokenized = TokenizedRow(
        np.asarray(encoded["input_ids"][0], dtype=np.int64),
        None if types is None else np.asarray(types[0], dtype=np.int64),
        RowUnits(tuple(units), owner, words_per_unit, len(words) - len(read)),
    )
    return Sentence(model, tuple(words), tokenized, firsts)


def tag_cases(sentence: Sentence) -> list[Case]:
    """The case of a sentence's entities: the mean log probability of the tags of the words that are
    tagged as part of one; for a sentence without entities, of all words."""
    names = sentence.model.classes
    units = sentence.read.words
    logits = sentence.logits(np.ones((1, units), dtype=bool))[0]
    tags = logits.argmax(axis=1)
    inside = np.flatnonzero([names[tag] != OUTSIDE for tag in tags])
    positions = inside if len(inside) else np.arange(len(tags))
    predicted_tags = tags[positions]

    def mean_log_probability(keep: Bools) -> Floats:
        logits_at = sentence.logits(keep)[:, positions].astype(np.float64)
        tag_logits = np.take_along_axis(
            logits_at, np.broadcast_to(predicted_tags, logits_at.shape[:2])[..., None], axis=2
        )
        return np.asarray((tag_logits[..., 0] - log_sum_exp(logits_at)).mean(axis=1))

    def score(output: Tensor) -> Tensor:
        import torch

        at = sentence.at_words(output, sentence.firsts[positions]).log_softmax(dim=-1)
        places = torch.as_tensor(predicted_tags).expand(len(at), -1).unsqueeze(-1)
        return at.gather(2, places)[..., 0].mean(dim=1)

    query = TextQuery(sentence.model, sentence.read)
    differentiable = hasattr(sentence.model.network, "model")
    gradients = (lambda: query.gradients(score)) if differentiable else None
    shown = sorted({names[tag].partition("-")[2] or names[tag] for tag in predicted_tags})
    return [
        Case(
            ", ".join(shown) if len(inside) else OUTSIDE,
            "log probability",
            MaskedScore(mean_log_probability, units),
            gradients,
            lambda scores: np.exp(np.minimum(scores, 0.0)),
        )
    ]


SQUARES_PER_SIDE = 8
# Pixel values that are passed in one batch.
VALUES_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class ImageSquares:
    """An image as the model reads it (``pixels`` [1, channels, H, W]) in ``down`` × ``across``
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

    def logits(self, keep: Bools) -> Floats:
        """The logits [m, classes] with only ``keep`` [m, squares] visible."""
        import torch

        owner = self.owner

        def forward(some: Bools) -> Tensor:
            visible = torch.from_numpy(some[:, owner]).unsqueeze(1)
            return self.model.network(pixel_values=self.pixels * visible).float()

        return in_batches(forward, keep, max(1, VALUES_AT_ONCE // self.pixels.numel()))

    def gradients(self, score: Callable[[Tensor], Tensor]) -> Gradients:
        """Integrated gradients of ``score`` (of the network's outputs) from the empty image, summed
        over each square."""
        import torch

        def score_pixels(pixels: Tensor) -> Tensor:
            return score(self.model.network(pixel_values=pixels).double())

        path = integrated_gradients(score_pixels, torch.zeros_like(self.pixels), self.pixels)
        return path.of_units(self.owner.ravel(), self.down * self.across, over=1)


def read_image(
    model: VisionModel, path: str, squares_per_side: int = SQUARES_PER_SIDE
) -> ImageSquares:
    """The image at ``path`` as the model reads it, in ``squares_per_side`` × ``squares_per_side``
    squares (fewer if it has fewer pixels)."""
    pixels = PixelTensors([path], model.processor, model.channels)([0])
    high, wide = int(pixels.shape[-2]), int(pixels.shape[-1])
    return ImageSquares(model, pixels, min(squares_per_side, high), min(squares_per_side, wide))


def image_cases(image: ImageSquares) -> list[Case]:
    """The case of the image's class: its log-odds against all others."""
    squares = image.down * image.across
    return [odds_case(image.logits, squares, image.model.classes, image.gradients)]
