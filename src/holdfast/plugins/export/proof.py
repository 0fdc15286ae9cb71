"""Verification that an exported file computes the same as the model, at several batch sizes and
lengths.

Seven synthetic rows of different lengths, from a fixed seed, go through the model. The file runs on
the first of them, on all of them, and on a batch of 64 in which they repeat. A row's output may not
depend on the other rows of a batch, so the model need not run on the 64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.core.errors import ModelError
from holdfast.core.records import Floats
from holdfast.plugins.export.model import Exportable

BATCHES = (1, 7, 64)
LENGTHS = (2, 33, 512)
TOLERANCE = 1e-4
SYNTHETIC_ROWS = 7
SEED = 7

Engine = Callable[[Mapping[str, Tensor]], Floats]


@dataclass(frozen=True, slots=True)
class OutputGap:
    """How far a file's outputs differ from the model's: ``largest`` the greatest difference of a
    logit, ``relative`` the same as a share of the largest logit where that exceeds 1, ``shapes``
    the tested batch × length.
    """

    largest: float
    relative: float
    shapes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "max_logit_gap": self.relative,
            "max_logit_difference": self.largest,
            "shapes": list(self.shapes),
        }


def proof_lengths(exportable: Exportable) -> tuple[int, ...]:
    """The lengths to test, within the model's limit. For an image 1, which stands for its one
    size.
    """
    if exportable.tokens is None:
        return (1,)
    most = exportable.tokens
    return tuple(dict.fromkeys(min(length, most) for length in LENGTHS))


def synthetic_rows(exportable: Exportable, batch: int, length: int) -> tuple[Tensor, ...]:
    """Synthetic rows, by position: the first ``batch`` of the seven (repeated beyond them) at this
    length. The first fills it; the others are padded.
    """
    row_numbers = np.arange(batch) % SYNTHETIC_ROWS
    generator = np.random.default_rng([SEED, length])
    if exportable.shape is not None:
        pixels = generator.standard_normal((SYNTHETIC_ROWS, *exportable.shape)).astype(np.float32)
        return (torch.from_numpy(pixels[row_numbers]),)
    words = np.setdiff1d(np.arange(exportable.vocabulary), [exportable.pad])
    ids = generator.choice(words, (SYNTHETIC_ROWS, length))
    lengths = np.maximum(1, length - length * np.arange(SYNTHETIC_ROWS) // (SYNTHETIC_ROWS + 1))
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    values = {
        "input_ids": np.where(mask == 1, ids, exportable.pad),
        "attention_mask": mask,
        # As for a pair whose second text begins in the middle.
        "token_type_ids": mask * (np.arange(length) >= (lengths // 2)[:, None]),
    }
    return tuple(
        torch.from_numpy(values[name][row_numbers].astype(np.int64)) for name in exportable.inputs
    )


def synthetic_batch(exportable: Exportable, batch: int, length: int) -> dict[str, Tensor]:
    """The same rows by name, as an engine takes them."""
    return dict(zip(exportable.inputs, synthetic_rows(exportable, batch, length), strict=True))


def logit_difference(
    exportable: Exportable, batch_rows: Mapping[str, Tensor], expected: Floats, actual: Floats
) -> tuple[float, float]:
    """The largest difference of a logit, and the same as a share of the largest logit where that
    exceeds 1; of a tagger at the tokens that are not padding.
    """
    if exportable.each_token:
        is_token = batch_rows["attention_mask"].numpy() == 1
        expected, actual = expected[is_token], actual[is_token]
    largest = float(np.abs(expected - actual).max())
    return largest, largest / max(1.0, float(np.abs(expected).max()))


def compare_file(exportable: Exportable, engine: Engine) -> OutputGap:
    """The gap between the file behind ``engine`` and the saved model, over every batch size and
    length.
    """
    largest = relative = 0.0
    shapes: list[str] = []
    for length in proof_lengths(exportable):
        with torch.inference_mode():
            saved_logits = (
                exportable.saved(*synthetic_rows(exportable, SYNTHETIC_ROWS, length))
                .float()
                .numpy()
            )
        size = "x".join(map(str, exportable.shape)) if exportable.shape else str(length)
        for batch in BATCHES:
            batch_rows = synthetic_batch(exportable, batch, length)
            expected, actual = saved_logits[np.arange(batch) % SYNTHETIC_ROWS], engine(batch_rows)
            largest_here = share = np.inf
            if actual.shape == expected.shape:
                largest_here, share = logit_difference(exportable, batch_rows, expected, actual)
            # NaN compares as false and must not pass for a small gap.
            if not np.isfinite(largest_here):
                largest_here = share = np.inf
            largest, relative = max(largest, largest_here), max(relative, share)
            shapes.append(f"{batch}x{size}")
    return OutputGap(largest, relative, tuple(shapes))


def check_gap(file: str, gap: float) -> None:
    """Raise ``ModelError`` where a file's outputs differ from the model's."""
    if not gap <= TOLERANCE:
        raise ModelError(
            file,
            f"differs from the model by more than {TOLERANCE:g} of the largest logit, "
            "so it is not kept",
            gap,
            "Please report it, with the model's name: its architecture is not exported faithfully.",
        )
