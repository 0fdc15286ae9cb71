"""Sequence-to-sequence: a source text in, a target text out, cross-entropy of each target token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.models.beginnings import beginnings
from holdfast.tasks.base import Batch, Measured
from holdfast.tasks.token_losses import (
    IGNORED,
    mean_of_each,
    measure_tokens,
    right_tokens,
    token_losses,
)

if TYPE_CHECKING:
    import torch

    from holdfast.data.table import Table

ENCODE_ROWS = 2048


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """Token ids of all rows that are used, flat: the source of row i is
    ``source_ids[source_offsets[i]:source_offsets[i + 1]]``, its target likewise.

    ``rows`` [n] source positions; ``kept`` [n] their positions in the table; ``left_out`` the
    source positions of rows of whose target not one token is left; ``source_cut`` and
    ``target_cut`` count the rows that were longer than the limits.
    """

    source_ids: Ints
    source_offsets: Ints
    target_ids: Ints
    target_offsets: Ints
    rows: Ints
    kept: Ints
    left_out: tuple[int, ...]
    source_cut: int
    target_cut: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Ints:
        """Tokens of source and target together [n]: what a row costs."""
        return np.asarray(np.diff(self.source_offsets) + self.target_lengths)

    @property
    def target_lengths(self) -> Ints:
        """Target tokens [n], the one that ends the text among them."""
        return np.diff(self.target_offsets)


def encode_pairs(
    table: Table,
    tokenizer: Any,
    max_length: int,
    max_target_length: int,
    end: int,
    need_target: bool = True,
) -> EncodedPairs:
    """Tokenise every row, cut at the limits; ``end`` is the token that ends a target, added where
    the tokenizer does not. A row is left out when its target has no token but special ones, unless
    ``need_target`` is false."""
    sources: list[Ints] = []
    targets: list[Ints] = []
    kept: list[int] = []
    left_out: list[int] = []
    cut = [0, 0]
    view = table.rows.with_format("arrow")
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for start in range(0, len(table), ENCODE_ROWS):
        block = view[start : start + ENCODE_ROWS]
        texts = beginnings(tokenizer, block["text"].to_pylist(), max_length)
        wanted = beginnings(tokenizer, block["target"].to_pylist(), max_target_length)
        read = _ids(tokenizer(texts, truncation=True, max_length=max_length))
        whole = _ids(tokenizer(text_target=wanted))
        written = _ids(tokenizer(text_target=wanted, truncation=True, max_length=max_target_length))
        cut[0] += _longer(tokenizer, texts, read, max_length)
        for i, row in enumerate(block["row"].to_pylist()):
            target, was_cut = _ended(written[i], whole[i], end, max_target_length)
            if need_target and not set(target) - special:
                left_out.append(int(row))
                continue
            cut[1] += was_cut
            sources.append(np.asarray(read[i], dtype=np.int32))
            targets.append(np.asarray(target, dtype=np.int32))
            kept.append(start + i)
    positions = np.asarray(kept, dtype=np.int64)
    rows = np.asarray(table.column("row"), dtype=np.int64)[positions]
    return EncodedPairs(
        *_flat(sources), *_flat(targets), rows, positions, tuple(left_out), cut[0], cut[1]
    )


def _ids(encoded: Any) -> list[list[int]]:
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _longer(tokenizer: Any, texts: list[str], read: list[list[int]], limit: int) -> int:
    """How many texts have more tokens than were read."""
    full = [text for text, ids in zip(texts, read, strict=True) if len(ids) >= limit]
    return sum(len(ids) > limit for ids in _ids(tokenizer(full))) if full else 0


def _ended(target: list[int], whole: list[int], end: int, limit: int) -> tuple[list[int], bool]:
    """A target with its end token, and whether it had to be cut."""
    cut = len(whole) > len(target)
    if target and target[-1] == end:
        return target, cut
    return [*target[: limit - 1], end], cut or len(target) >= limit


def _flat(lines: list[Ints]) -> tuple[Ints, Ints]:
    lengths = [len(line) for line in lines]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    return (np.concatenate(lines) if lines else np.zeros(0, dtype=np.int32)), offsets


@dataclass(frozen=True)
class SequenceToSequence:
    """The task's side of the loop. ``pad_id`` is the source's padding; −100 is the target's."""

    pad_id: int
    name: str = "seq2seq"
    classes: tuple[str, ...] = ()

    def collate(self, examples: EncodedPairs, positions: Sequence[int] | Ints) -> Batch:
        """``input_ids`` and ``attention_mask`` [batch, longest source], ``labels`` [batch, longest
        target], padded on the right; ``where`` [targets], the flat places of ``labels`` that hold
        a target, row by row; ``counts`` [batch] of each row."""
        import torch

        chosen = np.asarray(positions, dtype=np.int64)
        ids, inside = padded(examples.source_ids, examples.source_offsets, chosen, self.pad_id)
        labels, given = padded(examples.target_ids, examples.target_offsets, chosen, IGNORED)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "labels": torch.from_numpy(labels),
            "where": torch.from_numpy(np.flatnonzero(given)),
            "counts": torch.from_numpy(given.sum(axis=1)),
        }

    def forward(self, network: Any, batch: Batch) -> torch.Tensor:
        """The logits of every target token, row by row, [targets, vocabulary]."""
        inputs = {name: value for name, value in batch.items() if name != "counts"}
        logits: torch.Tensor = network.logits_at(**inputs)
        return logits

    def losses(self, output: Any, batch: Batch) -> torch.Tensor:
        """The mean cross-entropy of each row's target tokens [batch], in nats, in float32."""
        return mean_of_each(token_losses(output, wanted_of(batch)), batch["counts"])

    def weights(self, examples: EncodedPairs, positions: Sequence[int] | Ints) -> Floats:
        """Each row's target tokens, so that the training loss is the mean over tokens."""
        chosen = np.asarray(positions, dtype=np.int64)
        return examples.target_lengths[chosen].astype(np.float64)

    def join(self, outputs: Sequence[Any], batches: Sequence[Batch]) -> tuple[Any, Batch]:
        """Not asked: no loss of this task compares rows."""
        raise NotImplementedError("no loss of a generating task compares rows")

    def keep(self, output: Any, batch: Batch) -> torch.Tensor:
        """Target tokens, and those that were the likeliest, of each row [batch, 2]."""
        return right_tokens(output, wanted_of(batch), batch["counts"])

    def measure(
        self, losses: Floats, kept: Floats, examples: EncodedPairs, positions: Sequence[int] | Ints
    ) -> Measured:
        """See ``token_losses.measure_tokens``."""
        return measure_tokens(losses, kept)


def wanted_of(batch: Batch) -> torch.Tensor:
    """The target tokens of a batch, row by row [targets]."""
    return batch["labels"].flatten()[batch["where"]]


def padded(ids: Ints, offsets: Ints, chosen: Ints, fill: int) -> tuple[Ints, Any]:
    """Rows of flat ids as a matrix [rows, longest] filled up on the right, int64, and where it
    holds ids."""
    starts, stops = offsets[chosen], offsets[chosen + 1]
    longest = max(1, int((stops - starts).max())) if len(chosen) else 1
    place = np.arange(longest)[None, :]
    inside = place < (stops - starts)[:, None]
    if not len(ids):
        return np.full((len(chosen), longest), fill, dtype=np.int64), inside
    source = np.minimum(starts[:, None] + place, len(ids) - 1)
    return np.where(inside, ids[source], fill).astype(np.int64), inside
