"""Sequence-to-sequence losses: cross-entropy of each target token, given the source text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.models.loading.tokenizer import text_beginnings
from holdfast.tasks.generation.losses import (
    IGNORED,
    ChunkedOutput,
    measure_tokens,
    right_of_each,
    right_tokens,
    token_losses,
)
from holdfast.tasks.lines import examples_at, joined, offsets_of, padded, take_lines
from holdfast.training.task import Batch, Measurements, row_means

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from holdfast.data.table import Table

ENCODE_ROWS = 2048


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """Token ids of all rows that are used, flat: the source of row i is
    ``source_ids[source_offsets[i]:source_offsets[i + 1]]``, its target likewise.

    ``rows`` [n] source positions; ``kept`` [n] their positions in the table, ascending; ``whole``
    [n] tokens of the target before it was truncated, its end included. Of the table's rows,
    ``table_rows`` are their positions in the source, ``source_cut`` says whose source was
    truncated, ``target_sizes`` is how many tokens the tokenizer makes of the target, all [rows of
    the table].
    """

    source_ids: Ints
    source_offsets: Ints
    target_ids: Ints
    target_offsets: Ints
    rows: Ints
    kept: Ints
    whole: Ints
    table_rows: Ints
    source_cut: npt.NDArray[np.bool_]
    target_sizes: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def left_out(self) -> tuple[int, ...]:
        """The source positions of rows without a remaining target token."""
        return tuple(np.delete(self.table_rows, self.kept).tolist())

    @property
    def target_cut(self) -> npt.NDArray[np.bool_]:
        """Whose target was truncated [n]."""
        return np.asarray(self.whole > self.target_lengths)

    @property
    def lengths(self) -> Ints:
        """Tokens of source and target together [n]: the cost of a row."""
        return np.asarray(np.diff(self.source_offsets) + self.target_lengths)

    @property
    def target_lengths(self) -> Ints:
        """Target tokens [n], including the one that ends the text."""
        return np.diff(self.target_offsets)

    def take(self, positions: Ints) -> EncodedPairs:
        indices, places = examples_at(self.kept, positions)
        return EncodedPairs(
            source_ids=take_lines(self.source_ids, self.source_offsets, indices),
            source_offsets=offsets_of(np.diff(self.source_offsets)[indices]),
            target_ids=take_lines(self.target_ids, self.target_offsets, indices),
            target_offsets=offsets_of(self.target_lengths[indices]),
            rows=self.rows[indices],
            kept=places,
            whole=self.whole[indices],
            table_rows=self.table_rows[positions],
            source_cut=self.source_cut[positions],
            target_sizes=self.target_sizes[positions],
        )

    def limited(self, limit: int, ending: int) -> EncodedPairs:
        """What encoding with this smaller limit of target tokens would give; the last ``ending``
        tokens of a target end it, and stay.
        """
        lengths = self.target_lengths
        if not (lengths > limit).any():
            return self
        lines = np.split(self.target_ids, self.target_offsets[1:-1])
        short = [
            line if len(line) <= limit else np.append(line[: limit - ending], line[-ending:])
            for line in lines
        ]
        ids, offsets = joined(short)
        return replace(self, target_ids=ids, target_offsets=offsets)


def encode_pairs(
    table: Table,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    max_target_length: int,
    end: int,
    need_target: bool = True,
) -> EncodedPairs:
    """Tokenise every row, truncated at the limits.

    ``end`` is the token that ends a target, added where the tokenizer does not. A row is left out
    when its target has only special tokens, unless ``need_target`` is false.
    """
    sources: list[Ints] = []
    targets: list[Ints] = []
    indices: list[int] = []
    lengths: list[int] = []
    sizes: list[int] = []
    cut: list[bool] = []
    view = table.rows.with_format("arrow")
    # An unknown word is a word: such a target is not empty.
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for start in range(0, len(table), ENCODE_ROWS):
        block = view[start : start + ENCODE_ROWS]
        texts = text_beginnings(tokenizer, block["text"].to_pylist(), max_length)
        target_texts = text_beginnings(tokenizer, block["target"].to_pylist(), max_target_length)
        read = _ids(tokenizer(texts, truncation=True, max_length=max_length))
        target_ids = _ids(tokenizer(text_target=target_texts))
        written = _ids(
            tokenizer(text_target=target_texts, truncation=True, max_length=max_target_length)
        )
        cut += _longer(tokenizer, texts, read, max_length)
        sizes += [len(ids) for ids in target_ids]
        for i in range(len(texts)):
            # A truncated target still gets its end token: the model must not learn to continue
            # forever.
            target = _ended(written[i], end, max_target_length)
            if need_target and not set(target) - special:
                continue
            # The end token counts where it is added here.
            lengths.append(len(target_ids[i]) + (written[i][-1:] != [end]))
            sources.append(np.asarray(read[i], dtype=np.int32))
            targets.append(np.asarray(target, dtype=np.int32))
            indices.append(start + i)
    positions = np.asarray(indices, dtype=np.int64)
    rows = np.asarray(table.column("row"), dtype=np.int64)
    return EncodedPairs(
        *joined(sources),
        *joined(targets),
        rows=rows[positions],
        kept=positions,
        whole=np.asarray(lengths, dtype=np.int64),
        table_rows=rows,
        source_cut=np.asarray(cut, dtype=bool),
        target_sizes=np.asarray(sizes, dtype=np.int64),
    )


def _ids(encoded: BatchEncoding) -> list[list[int]]:
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _longer(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], read: list[list[int]], limit: int
) -> list[bool]:
    """Which texts have more tokens than were read."""
    # Only rows that fill the limit can be truncated: the others are not tokenised twice.
    full = [i for i, ids in enumerate(read) if len(ids) >= limit]
    token_ids = _ids(tokenizer([texts[i] for i in full])) if full else []
    long = {i for i, ids in zip(full, token_ids, strict=True) if len(ids) > limit}
    return [i in long for i in range(len(texts))]


def _ended(target: list[int], end: int, limit: int) -> list[int]:
    """A target with its end token."""
    return target if target and target[-1] == end else [*target[: limit - 1], end]


@dataclass(frozen=True)
class SequenceToSequence:
    """The task as the training loop sees it.

    ``pad_id`` is the source's padding; −100 is the target's. With ``chunk``, the logits of at most
    this many targets are in memory at once.
    """

    pad_id: int
    chunk: int | None = None
    name: str = "seq2seq"
    classes: tuple[str, ...] = ()

    def collate(self, examples: EncodedPairs, positions: Sequence[int] | Ints) -> Batch:
        """``input_ids`` and ``attention_mask`` [batch, longest source], ``labels`` [batch, longest
        target], padded on the right; ``where`` [targets], the flat positions of ``labels`` that
        hold a target, row by row; ``counts`` [batch] of each row.
        """
        import torch

        indices = np.asarray(positions, dtype=np.int64)
        ids, inside = padded(examples.source_ids, examples.source_offsets, indices, self.pad_id)
        labels, given = padded(examples.target_ids, examples.target_offsets, indices, IGNORED)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "labels": torch.from_numpy(labels),
            "where": torch.from_numpy(np.flatnonzero(given)),
            "counts": torch.from_numpy(given.sum(axis=1)),
        }

    def forward(self, network: Any, batch: Batch) -> torch.Tensor | ChunkedOutput:
        """The logits of every target token, row by row, [targets, vocabulary], or the losses made
        from them.
        """
        inputs = {name: value for name, value in batch.items() if name != "counts"}
        if self.chunk is not None:
            row_losses = network.losses_at(
                expected=target_tokens(batch), together=self.chunk, **inputs
            )
            return ChunkedOutput(*row_losses)
        logits: torch.Tensor = network.logits_at(**inputs)
        return logits

    def losses(self, output: torch.Tensor | ChunkedOutput, batch: Batch) -> torch.Tensor:
        """The mean cross-entropy of each row's target tokens [batch], in nats, in float32."""
        tokens = (
            output.losses
            if isinstance(output, ChunkedOutput)
            else token_losses(output, target_tokens(batch))
        )
        return row_means(tokens, batch["counts"])

    def weights(self, examples: EncodedPairs, positions: Sequence[int] | Ints) -> Floats:
        """Each row's target tokens, so that the training loss is the mean over tokens."""
        indices = np.asarray(positions, dtype=np.int64)
        return examples.target_lengths[indices].astype(np.float64)

    def join(self, outputs: Sequence[object], batches: Sequence[Batch]) -> tuple[Any, Batch]:
        """Never called: no loss of this task compares rows."""
        raise NotImplementedError("no loss of a generating task compares rows")

    def keep(self, output: torch.Tensor | ChunkedOutput, batch: Batch) -> torch.Tensor:
        """Target tokens of each row, and how many were the most probable, [batch, 2]."""
        if isinstance(output, ChunkedOutput):
            return right_of_each(output.right, batch["counts"])
        return right_tokens(output, target_tokens(batch), batch["counts"])

    def measure(
        self, losses: Floats, kept: Floats, examples: EncodedPairs, positions: Sequence[int] | Ints
    ) -> Measurements:
        """See ``losses.measure_tokens`` of ``tasks/generation``."""
        return measure_tokens(losses, kept)


def target_tokens(batch: Batch) -> torch.Tensor:
    """The target tokens of a batch, row by row [targets]."""
    return batch["labels"].flatten()[batch["where"]]
