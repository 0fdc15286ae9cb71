"""Text encoding for classifiers: tokenised rows, batches for the loop, and outputs of a saved model
in its saved precision. Reported numbers come only from those outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.contract.predictions import groups_of
from holdfast.core.decisions import tick
from holdfast.core.records import Floats, Ints, Outputs, log_sum_exp
from holdfast.models.compute.device import on_best_device
from holdfast.models.loading.tokenizer import text_beginnings
from holdfast.tasks.classes.losses import Classification, Metrics
from holdfast.tasks.lines import offsets_of, padded, take_lines
from holdfast.training.plan import batches_by_length
from holdfast.training.task import Batch, device_batch

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from holdfast.data.table import Table

# A tokenizer returns lists of Python numbers, 28 bytes and more each, until a block is packed.
ENCODE_ROWS = 4096
# Tokens of a batch that a saved model reads.
TOKENS = 1024


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Token ids of all rows, flat: row i is ``ids[offsets[i]:offsets[i + 1]]``.

    ``cut`` [n] says which rows were longer than the limit; ``lengths`` [n] in tokens. ``weights``
    [n] are how much each row counts in the training loss, where not all count 1.
    """

    ids: Ints
    types: Ints | None
    offsets: Ints
    rows: Ints
    labels: npt.NDArray[Any]
    cut: npt.NDArray[np.bool_]
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def take(self, positions: Ints) -> EncodedTexts:
        types = self.types
        return EncodedTexts(
            ids=take_lines(self.ids, self.offsets, positions),
            types=None if types is None else take_lines(types, self.offsets, positions),
            offsets=offsets_of(self.lengths[positions]),
            rows=self.rows[positions],
            labels=self.labels[positions],
            cut=self.cut[positions],
            weights=None if self.weights is None else self.weights[positions],
        )

    def extended(self, others: EncodedTexts, weights: Floats) -> EncodedTexts:
        """These rows, followed by ``others`` with ``weights``.

        These rows get weight 1 where they have none; the weights of ``others`` itself are not read.
        """
        types, own_weights = None, np.ones(len(self)) if self.weights is None else self.weights
        if self.types is not None and others.types is not None:
            types = np.concatenate([self.types, others.types])
        return EncodedTexts(
            ids=np.concatenate([self.ids, others.ids]),
            types=types,
            offsets=offsets_of(np.concatenate([self.lengths, others.lengths])),
            rows=np.concatenate([self.rows, others.rows]),
            labels=np.concatenate([self.labels, others.labels]),
            cut=np.concatenate([self.cut, others.cut]),
            weights=np.concatenate([own_weights, weights]),
        )


def encode(
    table: Table,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    labels: Ints | Floats | None = None,
) -> EncodedTexts:
    """Tokenise every row, truncated at ``max_length`` tokens (in pairs the longest text first).

    ``labels`` [n, …] replace the table's classes for labels that are not classes.
    """
    ids: list[Ints] = []
    types: list[Ints] = []
    lengths: list[int] = []
    cut: list[bool] = []
    for start in range(0, len(table), ENCODE_ROWS):
        stop = min(start + ENCODE_ROWS, len(table))
        block = table.rows.with_format("arrow")[start:stop]
        texts = [
            text_beginnings(tokenizer, block[name].to_pylist(), max_length)
            for name in ("text", "text_pair")
            if name in block.column_names
        ]
        encoded = tokenizer(
            *texts, truncation="longest_first", max_length=max_length, padding=False
        )
        cut += _were_cut(encoded)
        ids += [np.asarray(line, dtype=np.int32) for line in encoded["input_ids"]]
        # Segments are 0 and 1: one byte each.
        types += [np.asarray(line, dtype=np.int8) for line in encoded.get("token_type_ids", [])]
        lengths += [len(line) for line in encoded["input_ids"]]
    return EncodedTexts(
        ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        types=np.concatenate(types) if types else None,
        offsets=offsets_of(lengths),
        rows=np.asarray(table.column("row"), dtype=np.int64),
        labels=np.asarray(table.column("label"), dtype=np.int64) if labels is None else labels,
        cut=np.asarray(cut, dtype=bool),
    )


def _were_cut(encoded: BatchEncoding) -> list[bool]:
    """Which texts were truncated; a pure-Python tokenizer does not report it."""
    encodings = getattr(encoded, "encodings", None)
    if not encodings:
        return [False] * len(encoded["input_ids"])
    return [bool(encoding.overflowing) for encoding in encodings]


@dataclass(frozen=True)
class TextClassification(Classification):
    """The task as the training loop sees it; see ``Classification``."""

    pad_id: int
    classes: tuple[str, ...]
    metrics: Metrics = field(default_factory=dict)
    name: str = "text-classification"

    def collate(self, examples: EncodedTexts, positions: Sequence[int] | Ints) -> Batch:
        """Rows padded on the right to the longest of them: ``input_ids``, ``attention_mask``
        and, where the tokenizer makes them, ``token_type_ids``, all [batch, longest]."""
        import torch

        indices = np.asarray(positions, dtype=np.int64)
        ids, inside = padded(examples.ids, examples.offsets, indices, self.pad_id)
        batch = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "labels": torch.from_numpy(examples.labels[indices]),
        }
        if examples.types is not None:
            types, _ = padded(examples.types, examples.offsets, indices, 0)
            batch["token_type_ids"] = torch.from_numpy(types)
        return batch


class TextModel(Protocol):
    """A text classifier for inference: ``network`` maps a tokenizer's batch to outputs [batch,
    classes]; a text is truncated to ``max_length`` tokens.
    """

    @property
    def network(self) -> Callable[..., torch.Tensor]: ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def max_length(self) -> int: ...


def answer(classifier: TextModel, table: Table) -> Outputs:
    """The saved model's logits for every row of ``table``, float32, in the table's order.

    A row without a known label (-1) has a NaN loss.
    """
    return forward(
        classifier.network, classifier.tokenizer, classifier.max_length, classifier.classes, table
    )


def forward(
    network: Callable[..., torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    classes: tuple[str, ...],
    table: Table,
) -> Outputs:
    """As ``answer``, for any callable that maps a tokenizer's batch to logits [batch, classes]."""
    examples, logits = run_texts(network, tokenizer, max_length, len(classes), table)
    groups = groups_of(table)
    return Outputs(examples.rows, examples.labels, logits, _losses(logits, examples.labels), groups)


def run_texts(
    network: Callable[..., torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    outputs: int,
    table: Table,
) -> tuple[EncodedTexts, Floats]:
    """The encoded rows and the network's output for each [n, outputs], float32, in the table's
    order, whatever the outputs mean.
    """
    import torch

    examples = encode(table, tokenizer, max_length)
    task = TextClassification(tokenizer.pad_token_id, ())
    logits = np.zeros((len(examples), outputs), dtype=np.float32)
    tokens = max(TOKENS, int(examples.lengths.max()) if len(examples) else 1)
    done = 0
    with torch.inference_mode(), on_best_device(network, len(examples)) as device:
        for batch_rows in batches_by_length(examples.lengths, np.arange(len(examples)), tokens):
            batch = device_batch(task, examples, batch_rows, device)
            batch.pop("labels")
            logits[batch_rows] = network(**batch).float().cpu().numpy()
            done += len(batch_rows)
            tick(done, len(examples))
    return examples, logits


def with_logits(outputs: Outputs, logits: Floats) -> Outputs:
    """The same rows with other logits [n, classes]."""
    return replace(outputs, logits=logits, losses=_losses(logits, outputs.labels))


def _losses(logits: Floats, labels: Ints) -> Floats:
    # In float32 the loss of a row with eight nines of confidence is exactly 0.
    wide = logits.astype(np.float64)
    # A row without a label (−1) would read the last class; its loss is NaN below.
    of_label = wide[np.arange(len(wide)), np.maximum(labels, 0)]
    return np.where(labels >= 0, log_sum_exp(wide) - of_label, np.nan)
