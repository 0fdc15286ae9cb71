"""Scores of a pretrained generative model on the rows: the bits per byte of texts, before and after
a few updates of an adapter.

    bits per byte = Σ −log2 p(token | before) ÷ Σ UTF-8 bytes of the text that the tokens stand for

Perplexity counts tokens, and models tokenize differently; bytes are the same for all. Special
tokens (an end, the turns of a chat) cost bits and stand for no byte. Lower is better; the scores in
this project reverse the sign, so that higher is better everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.fits.fit import fit
from holdfast.metrics.comparison import bits_rows
from holdfast.tasks.generation.losses import perplexities
from holdfast.training.observe import Observer

if TYPE_CHECKING:
    from holdfast.tasks.lm.losses import EncodedTokens
    from holdfast.tasks.seq2seq.losses import EncodedPairs


# Validation rows that are read, and updates before they are read again.
MAX_ROWS, FEW_UPDATES = 300, 10


@dataclass(frozen=True, slots=True)
class TextEvidence:
    """Bits per byte ``before`` any update and ``after`` ``steps`` updates. ``rows`` [validation
    rows] are those after, with the sign reversed, NaN for a row without a target token; ``units``
    say which of them are duplicates or in one group. ``perplexity`` (per token of the model) is
    that before any update."""

    before: float
    after: float
    steps: int
    perplexity: float
    rows: Floats
    units: Ints
    rows_per_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "steps": self.steps,
            "perplexity": self.perplexity,
        }


def text_evidence(prepared: PreparedData, train: Ints, valid: Ints) -> TextEvidence:
    """Measured on at most 300 of the ``valid`` rows, the same for every model; ``train`` rows are
    used for the updates."""
    order = generator(prepared.recipe.seed, "rows of candidates").permutation(len(valid))
    sampled = np.sort(np.asarray(valid)[order[:MAX_ROWS]])
    settings = {"train.max_steps": FEW_UPDATES, "train.evaluations": 1, "control.policy": "off"}
    fitted = fit(prepared, train, sampled, settings)
    examples: Any = fitted.training_plan.valid
    tokenizer = prepared.loaded.tokenizer
    after = bits_per_byte_rows(examples, *fitted.measure(examples), tokenizer)
    observer = Observer(fitted.job.accelerator, fitted.job.task, alone=True)
    losses, outputs = observer.measure(fitted.base_network(), examples, np.arange(len(examples)))
    before = bits_per_byte_rows(examples, losses, outputs, tokenizer)
    counts = outputs[:, 0].astype(np.float64)
    mean_loss = float((losses * counts).sum() / max(counts.sum(), 1.0))
    return TextEvidence(
        before=-float(np.nanmean(before)),
        after=-float(np.nanmean(after)),
        steps=fitted.trained.last_step,
        perplexity=float(perplexities(np.array(mean_loss))),
        rows=after,
        units=prepared.units[sampled],
        rows_per_s=len(examples) / max(observer.seconds, 1e-9),
    )


def bits_per_byte_rows(
    examples: EncodedTokens | EncodedPairs, losses: Floats, outputs: Floats, tokenizer: Any
) -> Floats:
    """Bits per byte of each row of the table, with the sign reversed: ``losses`` [examples] in nats
    per token, ``outputs`` [examples, 2] with the number of target tokens first. A row may have
    several examples, or none."""
    nats = losses * outputs[:, 0].astype(np.float64)
    # Which row of the table each example is of, and how many rows there are.
    row_of_example = np.asarray(
        examples.positions if hasattr(examples, "positions") else examples.kept
    )
    rows = len(examples.table_rows)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in _target_ids(examples)]
    sizes = np.array([len(text.encode("utf-8")) for text in texts], dtype=np.float64)
    total_nats, bytes_ = np.zeros(rows), np.zeros(rows)
    np.add.at(total_nats, row_of_example, nats)
    np.add.at(bytes_, row_of_example, sizes)
    scored = np.isin(np.arange(rows), row_of_example) & (bytes_ > 0)
    row_bits = np.full(rows, np.nan)
    row_bits[scored] = -bits_rows(total_nats[scored], bytes_[scored])
    return row_bits


def _target_ids(examples: Any) -> list[list[int]]:
    if hasattr(examples, "target_ids"):
        ids, offsets = examples.target_ids, examples.target_offsets
        return [part.tolist() for part in np.split(ids, offsets[1:-1])]
    parts = np.split(examples.ids, examples.offsets[1:-1])
    masks = np.split(examples.targets, examples.offsets[1:-1])
    return [ids[mark].tolist() for ids, mark in zip(parts, masks, strict=True)]
