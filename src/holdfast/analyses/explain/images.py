"""Pictures with some of their squares covered, through an image classifier.

A square is covered with the colour that the model's own processor takes for the mean (0 once it is
normalised), which is also the start of integrated gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.analyses.explain.masking import (
    Case,
    Gradients,
    MaskedScore,
    chance_of_odds,
    integrated_gradients,
    log_odds,
    sums,
)
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints
from holdfast.tasks.images.losses import VisionModel
from holdfast.tasks.images.pixels import PixelTensors

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 8
# Values of pixels that are passed together.
TOGETHER = 1 << 22


@dataclass(frozen=True, eq=False)
class Covered:
    """A picture as the model reads it (``pixels`` [1, channels, H, W]) in ``down`` × ``across``
    squares, row by row."""

    model: VisionModel
    pixels: Tensor
    down: int
    across: int

    @property
    def owner(self) -> Ints:
        """The square of each pixel [H, W]."""
        high, wide = self.pixels.shape[-2:]
        rows = np.arange(high) * self.down // high
        columns = np.arange(wide) * self.across // wide
        return np.asarray(rows[:, None] * self.across + columns[None, :])

    def logits(self, kept: Bools) -> Floats:
        """The logits [m, classes] with only ``kept`` [m, squares] to be seen."""
        import torch

        owner, parts = self.owner, []
        size = max(1, TOGETHER // self.pixels.numel())
        with torch.inference_mode():
            for start in range(0, len(kept), size):
                seen = torch.from_numpy(kept[start : start + size][:, owner]).unsqueeze(1)
                parts.append(
                    self.model.network(pixel_values=self.pixels * seen).float().cpu().numpy()
                )
        return np.concatenate(parts)

    def gradients(self, place: int) -> Gradients:
        """Integrated gradients from the empty picture, summed over each square."""
        import torch

        def score(pixels: Tensor) -> Tensor:
            found = self.model.network(pixel_values=pixels).double()
            others = torch.cat([found[:, :place], found[:, place + 1 :]], dim=1)
            return found[:, place] - torch.logsumexp(others, dim=1)

        path = integrated_gradients(score, torch.zeros_like(self.pixels), self.pixels)
        flat = path.values[0].sum(dim=0).double().numpy().ravel()
        squares = self.down * self.across
        return Gradients(sums(flat, self.owner.ravel(), squares), path.gap, path.passes)


def covered(model: VisionModel, path: str, side: int = SIDE) -> Covered:
    """The picture at ``path`` as the model reads it, in ``side`` × ``side`` squares (fewer where it
    has fewer pixels)."""
    pixels = PixelTensors([path], model.processor, model.channels)([0])
    high, wide = int(pixels.shape[-2]), int(pixels.shape[-1])
    return Covered(model, pixels, min(side, high), min(side, wide))


def picture_cases(seen: Covered) -> list[Case]:
    """The case of the picture's class: its log-odds against all others."""
    squares = seen.down * seen.across
    place = int(seen.logits(np.ones((1, squares), dtype=bool))[0].argmax())

    def ask(kept: Bools) -> Floats:
        return log_odds(seen.logits(kept), place)

    return [
        Case(
            seen.model.classes[place],
            "log-odds",
            MaskedScore(ask, squares),
            lambda: seen.gradients(place),
            chance_of_odds,
        )
    ]
