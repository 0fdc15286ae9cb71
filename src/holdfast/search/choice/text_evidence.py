"""What a model that writes knows of texts: the bits that each byte of them costs it, before and
after a few updates of an adapter.

    bits a byte = Σ −log2 p(token | before) ÷ Σ UTF-8 bytes of the text that the tokens stand for

Perplexity counts tokens, and models split a text into other tokens; bytes are the same for all.
Special tokens (an end, the turns of a chat) cost bits and stand for no byte. Lower is better;
within this project's scores the sign is turned, so that higher is better everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.fits.fit import fit
from holdfast.metrics.row_scores import bits_rows
from holdfast.training.observe import Observer

if TYPE_CHECKING:
    from holdfast.tasks.lm.losses import EncodedTokens
    from holdfast.tasks.seq2seq.losses import EncodedPairs


# Validation rows that are read, and updates before they are read again.
MOST_ROWS, FEW = 300, 10


@dataclass(frozen=True, slots=True)
class TextEvidence:
    """Bits a byte ``before`` any update and ``after`` ``steps`` of them; ``rows`` [validation rows]
    are those after, each with its sign turned, NaN for one without a token of an answer; ``units``
    say which of them are copies or of one group.
    ``perplexity`` (a token of its own) stands beside, before."""

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
    """Of at most 300 of the ``valid`` rows, the same for every model; ``train`` rows are learned
    from."""
    order = generator(prepared.recipe.seed, "rows of candidates").permutation(len(valid))
    asked = np.sort(np.asarray(valid)[order[:MOST_ROWS]])
    settings = {"train.max_steps": FEW, "train.evaluations": 1, "control.policy": "off"}
    fitted = fit(prepared, train, asked, settings)
    examples: Any = fitted.ready.valid
    tokenizer = prepared.loaded.tokenizer
    after = text_rows(examples, *fitted.measure(examples), tokenizer)
    observer = Observer(fitted.job.accelerator, fitted.job.task, alone=True)
    losses, kept = observer.measure(fitted.untuned(), examples, np.arange(len(examples)))
    before = text_rows(examples, losses, kept, tokenizer)
    counts = kept[:, 0].astype(np.float64)
    mean = float((losses * counts).sum() / max(counts.sum(), 1.0))
    return TextEvidence(
        before=-float(np.nanmean(before)),
        after=-float(np.nanmean(after)),
        steps=fitted.trained.last_step,
        perplexity=float(np.exp(min(mean, 700.0))),
        rows=after,
        units=prepared.units[asked],
        rows_per_s=len(examples) / max(observer.seconds, 1e-9),
    )


def text_rows(
    examples: EncodedTokens | EncodedPairs, losses: Floats, kept: Floats, tokenizer: Any
) -> Floats:
    """Bits a byte of each row of the table, its sign turned: ``losses`` [examples] in nats a token,
    ``kept`` [examples, 2] its target tokens first. A row may have several examples, or none."""
    nats = losses * kept[:, 0].astype(np.float64)
    at, rows = _places(examples)
    sizes = np.array(
        [
            len(tokenizer.decode(ids, skip_special_tokens=True).encode("utf-8"))
            for ids in _target_ids(examples)
        ],
        dtype=np.float64,
    )
    whole, bytes_ = np.zeros(rows), np.zeros(rows)
    np.add.at(whole, at, nats)
    np.add.at(bytes_, at, sizes)
    some = np.isin(np.arange(rows), at) & (bytes_ > 0)
    found = np.full(rows, np.nan)
    found[some] = -bits_rows(whole[some], bytes_[some])
    return found


def _places(examples: EncodedTokens | EncodedPairs) -> tuple[Ints, int]:
    """Which row of the table each example is of, and how many rows there are."""
    at = examples.positions if hasattr(examples, "positions") else examples.kept
    return np.asarray(at), len(examples.table_rows)


def _target_ids(examples: Any) -> list[list[int]]:
    if hasattr(examples, "target_ids"):
        ids, offsets = examples.target_ids, examples.target_offsets
        return [part.tolist() for part in np.split(ids, offsets[1:-1])]
    parts = np.split(examples.ids, examples.offsets[1:-1])
    marks = np.split(examples.targets, examples.offsets[1:-1])
    return [ids[mark].tolist() for ids, mark in zip(parts, marks, strict=True)]
