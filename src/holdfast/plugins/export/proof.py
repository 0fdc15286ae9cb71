"""Whether an exported file computes what the model does, at every batch and length.

Seven rows, of unlike length and drawn from a fixed seed, go through the model; the file is asked
the first of them alone, all of them, and 64 in which they come round again. A row's answer may not
depend on what stands beside it, so the model need not be asked the 64.
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
DRAWN = 7
SEED = 7

Engine = Callable[[Mapping[str, Tensor]], Floats]


@dataclass(frozen=True, slots=True)
class OutputGap:
    """How far a file's outputs lie from the model's: ``largest`` the greatest difference of a
    logit, ``relative`` the same as a share of the largest logit where that exceeds 1,
    ``shapes`` what was asked, batch × length."""

    largest: float
    relative: float
    shapes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "max_logit_gap": self.relative,
            "max_logit_difference": self.largest,
            "shapes": list(self.shapes),
        }


def lengths_of(exportable: Exportable) -> tuple[int, ...]:
    """The lengths that are tried: no more than the model takes. Of a picture 1, which stands for
    its one size."""
    if exportable.tokens is None:
        return (1,)
    most = exportable.tokens
    return tuple(dict.fromkeys(min(length, most) for length in LENGTHS))


def rows_of(exportable: Exportable, batch: int, length: int) -> tuple[Tensor, ...]:
    """Made rows, by place: the first ``batch`` of the seven (round again beyond them) at this
    length. The first fills it; of the others the end is padding."""
    at = np.arange(batch) % DRAWN
    generator = np.random.default_rng([SEED, length])
    if exportable.shape is not None:
        pixels = generator.standard_normal((DRAWN, *exportable.shape)).astype(np.float32)
        return (torch.from_numpy(pixels[at]),)
    words = np.setdiff1d(np.arange(exportable.vocabulary), [exportable.pad])
    ids = generator.choice(words, (DRAWN, length))
    real = np.maximum(1, length - length * np.arange(DRAWN) // (DRAWN + 1))
    mask = (np.arange(length) < real[:, None]).astype(np.int64)
    made = {
        "input_ids": np.where(mask == 1, ids, exportable.pad),
        "attention_mask": mask,
        # As of a pair whose second text begins in the middle.
        "token_type_ids": mask * (np.arange(length) >= (real // 2)[:, None]),
    }
    return tuple(torch.from_numpy(made[name][at].astype(np.int64)) for name in exportable.inputs)


def batch_of(exportable: Exportable, batch: int, length: int) -> dict[str, Tensor]:
    """The same rows by name, as an engine is given them."""
    return dict(zip(exportable.inputs, rows_of(exportable, batch, length), strict=True))


def difference(
    exportable: Exportable, given: Mapping[str, Tensor], wanted: Floats, found: Floats
) -> tuple[float, float]:
    """The largest difference of a logit, and the same as a share of the largest logit where that
    exceeds 1; of a tagger at the tokens that are no padding."""
    if exportable.each_token:
        real = given["attention_mask"].numpy() == 1
        wanted, found = wanted[real], found[real]
    apart = float(np.abs(wanted - found).max())
    return apart, apart / max(1.0, float(np.abs(wanted).max()))


def prove(exportable: Exportable, engine: Engine) -> OutputGap:
    """The gap between the file behind ``engine`` and the model as it was saved, over every batch
    and length."""
    largest = relative = 0.0
    shapes: list[str] = []
    for length in lengths_of(exportable):
        with torch.inference_mode():
            told = exportable.asked(*rows_of(exportable, DRAWN, length)).float().numpy()
        size = "x".join(map(str, exportable.shape)) if exportable.shape else str(length)
        for batch in BATCHES:
            given = batch_of(exportable, batch, length)
            wanted, found = told[np.arange(batch) % DRAWN], engine(given)
            apart = share = np.inf
            if found.shape == wanted.shape:
                apart, share = difference(exportable, given, wanted, found)
            # NaN compares as false: it must not pass for a small one.
            if not np.isfinite(apart):
                apart = share = np.inf
            largest, relative = max(largest, apart), max(relative, share)
            shapes.append(f"{batch}x{size}")
    return OutputGap(largest, relative, tuple(shapes))


def check_gap(file: str, gap: float) -> None:
    """Raise ``ModelError`` where a file computes something else than the model."""
    if not gap <= TOLERANCE:
        raise ModelError(
            file,
            f"differs from the model by more than {TOLERANCE:g} of the largest logit, so it is not "
            "kept",
            gap,
            "Please report it, with the model's name: its architecture is not exported faithfully.",
        )
