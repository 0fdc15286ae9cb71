"""Random resized crop: a part of the picture at its full size (1409.4842)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.pictures.warp import unit, warped
from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number

if TYPE_CHECKING:
    from torch import Tensor

RATIO = 4 / 3


def zoomed(pixels: Tensor, chances: Chances, least: float = 0.35) -> Tensor:
    """A part of each picture of ``least`` … 1 of its area, of a ratio of sides of 3:4 … 4:3, at a
    place of chance inside it, stretched to the whole."""
    height, width = pixels.shape[-2:]
    matrices = unit(len(chances))
    for k, rng in enumerate(chances):
        area = rng.uniform(least, 1)
        ratio = np.exp(rng.uniform(-np.log(RATIO), np.log(RATIO)))
        sides = np.minimum(1, np.sqrt([area * ratio, area / ratio]))
        room = (1 - sides) / 2 * np.array([width, height])
        matrices[k, 0, 0], matrices[k, 1, 1] = sides
        matrices[k, :, 2] = rng.uniform(-room, room)
    return warped(pixels, matrices)


@dataclass(frozen=True)
class Resize(PictureEnrichment):
    """``least`` is the smallest share of the area that is shown."""

    least: float = number(0.35, above=0, most=1)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """See ``zoomed``."""
        return zoomed(pixels, chances, self.least)


ENRICHMENTS.add(
    "resize",
    Enrichment(Resize, "pictures", "usual for large pictures from random weights (1409.4842)"),
)
