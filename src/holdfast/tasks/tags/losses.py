"""Token classification losses: cross-entropy of a tag for each word.

A word is tokenised into pieces; its first piece carries the tag, the others are ignored, as in the
fine-tuning of 1810.04805. Words beyond the model's length, and those without a piece, are not read:
they take part in no loss, and are predicted as ``O``, or as the most frequent tag where there is no
``O``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.tasks.generation.losses import token_losses
from holdfast.tasks.lines import examples_at, joined, offsets_of, padded, take_lines
from holdfast.tasks.rates import f1_of
from holdfast.tasks.tags.entities import TagTable, entity_counts
from holdfast.training.task import Batch, Measurements, row_means

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from holdfast.data.table import Table
    from holdfast.models.base import Network

# What every evaluation measures.
WATCHED = ("entity_f1", "accuracy")
ENCODE_ROWS = 1024
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class EncodedWords:
    """Pieces of all sentences, flat: those of row i are ``ids[offsets[i]:offsets[i + 1]]``.

    ``places`` [read words] is the first piece of each word that is read, counted in its sentence,
    ``words`` [read words] which word of the sentence it is, ``tags`` [read words] its tag (−1 where
    unknown); those of row i are at ``starts[i]:starts[i + 1]``. ``rows`` [n] are source positions,
    ``kept`` [n] places in the table, ascending: a training sentence of which no word is read is
    left out. ``counts`` [n] are the words of each sentence, read or not, and ``cut`` [n] those
    beyond the limit. ``table_rows`` [rows of the table] source positions.
    """

    ids: Ints
    types: Ints | None
    offsets: Ints
    places: Ints
    words: Ints
    tags: Ints
    starts: Ints
    rows: Ints
    kept: Ints
    counts: Ints
    cut: Ints
    table_rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Ints:
        """Lengths in pieces, [n]."""
        return np.diff(self.offsets)

    @property
    def read(self) -> Ints:
        """The number of words that are read, [n]."""
        return np.diff(self.starts)

    def take(self, positions: Ints) -> EncodedWords:
        indices, places = examples_at(self.kept, positions)
        types = None if self.types is None else take_lines(self.types, self.offsets, indices)
        return EncodedWords(
            ids=take_lines(self.ids, self.offsets, indices),
            types=types,
            offsets=offsets_of(self.lengths[indices]),
            places=take_lines(self.places, self.starts, indices),
            words=take_lines(self.words, self.starts, indices),
            tags=take_lines(self.tags, self.starts, indices),
            starts=offsets_of(self.read[indices]),
            rows=self.rows[indices],
            kept=places,
            counts=self.counts[indices],
            cut=self.cut[indices],
            table_rows=self.table_rows[positions],
        )


def encode_words(
    table: Table, tokenizer: PreTrainedTokenizerBase, max_length: int, *, need_words: bool = True
) -> EncodedWords:
    """Tokenise every sentence word by word, truncated at ``max_length`` pieces. ``need_words``
    leaves out the sentences of which no word is read.
    """
    sentences_encoded: list[_Sentence] = []
    for start in range(0, len(table), ENCODE_ROWS):
        block = table.rows.with_format("arrow")[start : start + ENCODE_ROWS]
        sentences, tags = block["tokens"].to_pylist(), block["tags"].to_pylist()
        # Every word that is read has a piece of its own, so there cannot be more.
        truncated = [words[:max_length] for words in sentences]
        encoded = tokenizer(
            truncated,
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
            padding=False,
        )
        for i, words in enumerate(sentences):
            one = _encoded(encoded, i, words, tags[i], start + i, max_length)
            if len(one.words) or not need_words:
                sentences_encoded.append(one)
    rows = np.asarray(table.column("row"), dtype=np.int64)
    indices = np.array([one.at for one in sentences_encoded], dtype=np.int64)
    ids, offsets = joined([one.ids for one in sentences_encoded])
    starts = offsets_of([len(one.words) for one in sentences_encoded])
    with_types = sentences_encoded and sentences_encoded[0].types is not None
    return EncodedWords(
        ids=ids,
        types=joined([one.types for one in sentences_encoded])[0].astype(np.int8)
        if with_types
        else None,
        offsets=offsets,
        places=joined([one.places for one in sentences_encoded])[0].astype(np.int64),
        words=joined([one.words for one in sentences_encoded])[0].astype(np.int64),
        tags=joined([one.tags for one in sentences_encoded])[0].astype(np.int64),
        starts=starts,
        rows=rows[indices],
        kept=indices,
        counts=np.array([one.count for one in sentences_encoded], dtype=np.int64),
        cut=np.array([one.cut for one in sentences_encoded], dtype=np.int64),
        table_rows=rows,
    )


@dataclass(frozen=True, slots=True)
class _Sentence:
    """One line of ``EncodedWords``; ``at`` is its place in the table."""

    at: int
    ids: Ints
    types: Ints | None
    places: Ints
    words: Ints
    tags: Ints
    count: int
    cut: int


def _encoded(
    encoded: BatchEncoding, i: int, words: list[str], tags: list[int], at: int, max_length: int
) -> _Sentence:
    owner = np.array([UNKNOWN if word is None else word for word in encoded.word_ids(i)])
    # The first place of a word is its first piece.
    read, first = np.unique(owner, return_index=True)
    first, read = first[read >= 0], read[read >= 0]
    known = tags or [UNKNOWN] * len(words)
    # Below the limit, words after the last read one have no pieces; they are not truncated.
    after = len(words) - 1 - int(read.max(initial=UNKNOWN))
    types = encoded["token_type_ids"][i] if "token_type_ids" in encoded else None
    return _Sentence(
        at,
        ids=np.asarray(encoded["input_ids"][i]),
        types=None if types is None else np.asarray(types),
        places=first,
        words=read,
        tags=np.array([known[word] for word in read], dtype=np.int64),
        count=len(words),
        cut=after if len(owner) >= max_length else 0,
    )


@dataclass(frozen=True)
class TokenClassification:
    """The task as the training loop sees it; ``classes`` are the tags, ``table`` their meanings."""

    pad_id: int
    classes: tuple[str, ...]
    name: str = "token-classification"
    table: TagTable = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", TagTable.of(self.classes))

    def collate(self, examples: EncodedWords, positions: Sequence[int] | Ints) -> Batch:
        """``input_ids`` and ``attention_mask`` [batch, longest] (``token_type_ids`` where the model
        has them), padded on the right; ``where`` [words], the flat places of the words' first
        pieces, row by row; ``tags`` [words] and ``counts`` [batch]."""
        import torch

        indices = np.asarray(positions, dtype=np.int64)
        ids, inside = padded(examples.ids, examples.offsets, indices, self.pad_id)
        read = examples.read[indices]
        # The places starts[i] to starts[i + 1] of each chosen i, one after the other.
        starts = examples.starts
        at = take_lines(np.arange(starts[-1]), starts, indices)
        where = examples.places[at] + np.repeat(np.arange(len(indices)), read) * ids.shape[1]
        batch = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "where": torch.from_numpy(where),
            "tags": torch.from_numpy(examples.tags[at]),
            "counts": torch.from_numpy(read),
        }
        if examples.types is not None:
            types, _ = padded(examples.types, examples.offsets, indices, 0)
            batch["token_type_ids"] = torch.from_numpy(types)
        return batch

    def forward(self, network: Network, batch: Batch) -> torch.Tensor:
        """The logits of every word that is read, row by row, [words, tags]."""
        return word_logits(network, word_features(network, batch))

    def losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The mean cross-entropy of each sentence's words [batch], in nats, in float32."""
        return row_means(token_losses(output, batch["tags"]), batch["counts"])

    def weights(self, examples: EncodedWords, positions: Sequence[int] | Ints) -> Floats:
        """Each sentence's words, so that the training loss is the mean over words."""
        return examples.read[np.asarray(positions, dtype=np.int64)].astype(np.float64)

    def join(self, outputs: Sequence[object], batches: Sequence[Batch]) -> tuple[Any, Batch]:
        """Never called: no loss of this task compares rows."""
        raise NotImplementedError("no loss of token classification compares rows")

    def keep(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """A sentence's counts, [batch, 5]: its words, the correct ones, and its entities that are
        found, predicted and labelled.
        """
        import torch

        truth, answers = batch["tags"].cpu().numpy(), output.argmax(dim=-1).cpu().numpy()
        counts = batch["counts"].cpu().numpy()
        # Counted here, while the words are in memory: an evaluation keeps one line a sentence.
        right = np.add.reduceat(truth == answers, np.cumsum(counts) - counts)
        entities = entity_counts(truth, answers, counts, self.table)
        sums = entities.reshape(len(counts), 3, -1).sum(axis=2)
        statistics = np.column_stack([counts, right, sums]).astype(np.float32)
        return torch.from_numpy(statistics).to(output.device)

    def measure(
        self, losses: Floats, kept: Floats, examples: EncodedWords, positions: Sequence[int] | Ints
    ) -> Measurements:
        """Entity F1 over all sentences and the share of correct words; a sentence is correct where
        all of its words are. All NaN when there are no rows.
        """
        if not len(losses):
            return Measurements(losses, dict.fromkeys(WATCHED, float("nan")), float("nan"), 1.0)
        words, right, *sums = kept.astype(np.float64).T
        correct, predicted, labelled = (np.asarray(part.sum()) for part in sums)
        values = {
            "entity_f1": float(f1_of(correct, labelled, predicted)),
            "accuracy": float(right.sum() / words.sum()),
        }
        return Measurements(losses, values, float(np.mean(losses)), 1.0, right == words)


def word_features(network: Any, batch: Batch) -> torch.Tensor:
    """The last layer's input for each word, its first piece's state [words, width], float32."""
    inputs = {k: v for k, v in batch.items() if k not in ("where", "tags", "counts")}
    states: torch.Tensor = network.features(**inputs)
    # A learned prompt precedes the pieces.
    states = states[:, states.shape[1] - batch["input_ids"].shape[1] :]
    return states.flatten(0, 1)[batch["where"]].float()


def word_logits(network: Any, features: torch.Tensor) -> torch.Tensor:
    """Logits of words [words, tags]; the last layer is computed in float32 whatever the precision,
    as it is for whole texts.
    """
    import torch

    with torch.autocast(features.device.type, enabled=False):
        logits: torch.Tensor = network.head(network.dropout(features))
    return logits
