"""Rows through a saved model, in its saved precision: the only numbers that are reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.contract.predictions import groups_of
from holdfast.core.decisions import tick
from holdfast.core.records import Floats, Ints, Outputs, log_sum_exp
from holdfast.tasks.classes.encoding import EncodedTexts, TextClassification, encode
from holdfast.training.batches import by_length

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.data.table import Table


TOKENS = 1024


class TextModel(Protocol):
    """A text classifier that is asked: ``network`` maps a tokenizer's batch to outputs
    [batch, classes], a text is cut to ``max_length`` tokens."""

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
    order, whatever the outputs mean."""
    import torch

    examples = encode(table, tokenizer, max_length)
    task = TextClassification(tokenizer.pad_token_id, ())
    logits = np.zeros((len(examples), outputs), dtype=np.float32)
    tokens = max(TOKENS, int(examples.lengths.max()) if len(examples) else 1)
    done = 0
    with torch.inference_mode():
        for chosen in by_length(examples.lengths, np.arange(len(examples)), tokens):
            batch = task.collate(examples, chosen)
            batch.pop("labels")
            logits[chosen] = network(**batch).float().numpy()
            done += len(chosen)
            tick(done, len(examples))
    return examples, logits


def with_logits(outputs: Outputs, logits: Floats) -> Outputs:
    """The same rows with other logits [n, classes]."""
    return replace(outputs, logits=logits, losses=_losses(logits, outputs.labels))


def _losses(logits: Floats, labels: Ints) -> Floats:
    # In float32 the loss of a row that is sure to eight digits is exactly 0.
    wide = logits.astype(np.float64)
    # A row without a label (−1) would read the last class; its loss is NaN below.
    of_label = wide[np.arange(len(wide)), np.maximum(labels, 0)]
    return np.where(labels >= 0, log_sum_exp(wide) - of_label, np.nan)
