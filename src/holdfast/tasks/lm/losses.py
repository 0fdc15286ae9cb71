"""Causal language modelling: each token is predicted from those before it; in chats, only the
tokens of answers count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.data.chats.chat import read_row_turns
from holdfast.tasks.generation.losses import (
    ChunkedOutput,
    measure_tokens,
    right_of_each,
    right_tokens,
    token_losses,
)
from holdfast.tasks.lines import common_prefix_length, examples_at, joined, offsets_of, take_lines
from holdfast.tasks.lm.chat_tokens import Mask, blocks_of, chat_tokens, text_tokens
from holdfast.training.task import Batch, Measurements, row_means

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.data.table import Table


@dataclass(frozen=True, slots=True)
class EncodedTokens:
    """Examples, flat: example i is ``ids[offsets[i]:offsets[i + 1]]``; ``targets`` marks the tokens
    that the loss is computed on (never the first: no token precedes it).

    ``rows`` [n] is each example's source row; a long plain text has several. ``positions`` [n] is
    its place in the table, ascending. Of the table's rows, ``cut`` says whose end was truncated,
    and ``table_rows`` their positions in the source, both [rows of the table].
    """

    ids: Ints
    targets: Mask
    offsets: Ints
    rows: Ints
    positions: Ints
    cut: Mask
    table_rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def left_out(self) -> tuple[int, ...]:
        """The source rows without a remaining target."""
        return tuple(np.delete(self.table_rows, self.positions).tolist())

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def target_counts(self) -> Ints:
        """Target tokens of each example [n]."""
        running = np.concatenate([[0], np.cumsum(self.targets, dtype=np.int64)])
        return np.asarray(running[self.offsets[1:]] - running[self.offsets[:-1]])

    @property
    def places(self) -> Ints:
        """The place of each token in its example, from 0."""
        return np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)

    def extended(self, others: EncodedTokens, weights: Floats) -> EncodedTokens:
        """These examples, followed by the rows of ``others``; all have equal weight."""
        if (np.asarray(weights) != 1).any():
            raise Defect("added rows", "of a language model have equal weight")
        return EncodedTokens(
            ids=np.concatenate([self.ids, others.ids]),
            targets=np.concatenate([self.targets, others.targets]),
            offsets=offsets_of(np.concatenate([self.lengths, others.lengths])),
            rows=np.concatenate([self.rows, others.rows]),
            positions=np.concatenate([self.positions, others.positions + len(self.cut)]),
            cut=np.concatenate([self.cut, others.cut]),
            table_rows=np.concatenate([self.table_rows, others.table_rows]),
        )

    def as_probe(self, end: int | None, skipped: int) -> EncodedTokens:
        """The same examples for measuring memorization of these texts, not of where they end.

        No loss is computed on the ``end`` token, which all fine-tuning on answers makes more
        probable, nor on the first ``skipped`` tokens of a row, which have almost no context.
        """
        begins = np.r_[True, np.diff(self.positions) > 0][: len(self)]
        early = np.repeat(begins, self.lengths) & (self.places < skipped)
        scored = replace(self, targets=self.targets & ~early & (self.ids != end))
        return scored._lines(np.flatnonzero(scored.target_counts))

    @property
    def common_prefix(self) -> Ints:
        """The tokens before every target that all examples begin with; the last token before a
        target is not among them, as it predicts the target."""
        if not len(self):
            return self.ids
        lines = np.split(self.ids, self.offsets[1:-1])
        targets = np.split(self.targets, self.offsets[1:-1])
        before = min(int(np.argmax(marks)) - 1 for marks in targets)
        return lines[0][: max(0, min(before, common_prefix_length(lines)))]

    def without_prefix(self, count: int) -> EncodedTokens:
        """The same examples without their first ``count`` tokens."""
        kept = self.places >= count
        return replace(
            self,
            ids=self.ids[kept],
            targets=self.targets[kept],
            offsets=offsets_of(self.lengths - count),
        )

    def take(self, positions: Ints) -> EncodedTokens:
        indices, places = examples_at(self.positions, positions)
        return replace(
            self._lines(indices),
            positions=places,
            cut=self.cut[positions],
            table_rows=self.table_rows[positions],
        )

    def _lines(self, indices: Ints) -> EncodedTokens:
        """Some examples, of the same rows of the table."""
        return replace(
            self,
            ids=take_lines(self.ids, self.offsets, indices),
            targets=take_lines(self.targets, self.offsets, indices),
            offsets=offsets_of(self.lengths[indices]),
            rows=self.rows[indices],
            positions=self.positions[indices],
        )


def encode(table: Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedTokens:
    """Tokenise every row.

    A chat is truncated at ``max_length`` tokens, and left out where no token of an answer remains.
    A plain text becomes blocks of that length, and keeps every token.
    """
    examples: list[tuple[Ints, Mask, int]] = []
    cut = np.zeros(len(table), dtype=bool)
    rows = np.asarray(table.column("row"), dtype=np.int64)
    texts, chats = table.column("text"), read_row_turns(table)
    for at in range(len(table)):
        if not chats[at]:
            blocks = blocks_of(text_tokens(tokenizer, texts[at]), max_length)
            blocks_and_targets = [(ids, np.ones(len(ids), bool)) for ids in blocks]
        else:
            ids, inside = chat_tokens(tokenizer, chats[at])
            cut[at] = len(ids) > max_length
            blocks_and_targets = [(ids[:max_length], inside[:max_length])]
        examples += [(ids, inside, at) for ids, inside in blocks_and_targets if inside[1:].any()]
    return join_examples(examples, rows, cut)


def join_examples(examples: list[tuple[Ints, Mask, int]], rows: Ints, cut: Mask) -> EncodedTokens:
    """The examples, each with its ids, targets and place in the table with these source ``rows``,
    of which ``cut`` were truncated."""
    ids, offsets = joined([ids for ids, _, _ in examples])
    targets = np.concatenate([inside for _, inside, _ in examples] or [np.zeros(0, bool)])
    # Blocks of a text mark every token; the first has no context to be predicted from.
    targets[offsets[:-1]] = False
    positions = np.asarray([at for _, _, at in examples], dtype=np.int64)
    return EncodedTokens(ids, targets, offsets, rows[positions], positions, cut, rows)


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """``logits`` [targets, vocabulary] at the positions that predict a target, of all examples one
    after the other.
    """

    logits: torch.Tensor


@dataclass(frozen=True)
class CausalLM:
    """The task as the training loop sees it.

    With ``pack``, short examples share a line of a batch; each still attends only to itself.
    Training and evaluation use the same code. With ``chunk``, the logits of at most this many
    targets are in memory at once.
    """

    pad_id: int = 0
    pack: bool = False
    chunk: int | None = None
    classes: tuple[str, ...] = ("all",)
    name: str = "causal-lm"

    def collate(self, examples: EncodedTokens, positions: Sequence[int] | Ints) -> Batch:
        """``input_ids`` and ``position_ids`` [lines, longest]; ``where`` [targets], the flat
        positions that predict a target; ``expected`` [targets]; ``counts`` [batch] targets of each
        example.

        Position ids restart at 0 with every example, and at every padding token; Transformers'
        models separate examples by them. No mask is needed: padding comes last.
        """
        import torch

        indices = np.asarray(positions, dtype=np.int64)
        starts, sizes = examples.offsets[indices], examples.lengths[indices]
        line, column = _places(sizes, self.pack)
        shape = (int(line.max()) + 1, int((column + sizes).max()))
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        at = np.zeros(shape, dtype=np.int64)
        where, expected, counts = [], [], []
        for start, size, i, j in zip(starts, sizes, line, column, strict=True):
            tokens = examples.ids[start : start + size]
            ids[i, j : j + size], at[i, j : j + size] = tokens, np.arange(size)
            target_places = np.flatnonzero(examples.targets[start : start + size])
            # A token is predicted at the position before its own.
            where.append(i * shape[1] + j + target_places - 1)
            expected.append(tokens[target_places])
            counts.append(len(target_places))
        batch = {
            "input_ids": ids,
            "where": np.concatenate(where),
            "expected": np.concatenate(expected).astype(np.int64),
            "counts": np.asarray(counts, dtype=np.int64),
        }
        if self.pack:
            batch["position_ids"] = at
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def forward(self, network: Any, batch: Batch) -> TokenOutput | ChunkedOutput:
        """Logits of the positions that predict a target, or the losses made from them, in the
        network's current mode.
        """
        inputs = {n: batch[n] for n in ("input_ids", "position_ids") if n in batch}
        if self.chunk is not None:
            row_losses = network.losses_at(batch["where"], batch["expected"], self.chunk, **inputs)
            return ChunkedOutput(*row_losses)
        return TokenOutput(network.logits_at(batch["where"], **inputs))

    def losses(self, output: TokenOutput | ChunkedOutput, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over each example's targets [batch], in nats, in float32."""
        tokens = (
            output.losses
            if isinstance(output, ChunkedOutput)
            else token_losses(output.logits, batch["expected"])
        )
        return row_means(tokens, batch["counts"])

    def weights(self, examples: EncodedTokens, positions: Sequence[int] | Ints) -> Floats:
        """The number of target tokens of each example."""
        indices = np.asarray(positions, dtype=np.int64)
        return examples.target_counts[indices].astype(np.float64)

    def join(self, outputs: Sequence[object], batches: Sequence[Batch]) -> tuple[Any, Batch]:
        """No loss of this task compares examples."""
        raise Defect(self.name, "has no loss that compares rows")

    def keep(self, output: TokenOutput | ChunkedOutput, batch: Batch) -> torch.Tensor:
        """Targets of each example, and how many were the most probable token [batch, 2]."""
        if isinstance(output, ChunkedOutput):
            return right_of_each(output.right, batch["counts"])
        return right_tokens(output.logits, batch["expected"], batch["counts"])

    def measure(
        self, losses: Floats, kept: Floats, examples: EncodedTokens, positions: Sequence[int] | Ints
    ) -> Measurements:
        """See ``losses.measure_tokens`` of ``tasks/generation``."""
        return measure_tokens(losses, kept)


def _places(sizes: Ints, pack: bool) -> tuple[Ints, Ints]:
    """Line and first column of each example: one example a line, or packed, the longest first, into
    the first line with room. No line is longer than the longest example.
    """
    if not pack:
        return np.arange(len(sizes)), np.zeros(len(sizes), dtype=np.int64)
    line, column = np.zeros((2, len(sizes)), dtype=np.int64)
    room: list[int] = []
    for at in np.argsort(-sizes, kind="stable"):
        size = int(sizes[at])
        block = next((n for n, left in enumerate(room) if left >= size), None)
        if block is None:
            room.append(int(sizes.max()))
            block = len(room) - 1
        line[at], column[at] = block, int(sizes.max()) - room[block]
        room[block] -= size
    return line, column
