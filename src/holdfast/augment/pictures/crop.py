"""Random crop: the picture is shifted by chance, which is to pad it and cut it out elsewhere."""

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

USUAL = "the usual region of small pictures from random weights (1512.03385, section 4.2)"


def shifted(pixels: Tensor, chances: Chances, strength: float = 0.125) -> Tensor:
    """Pictures shifted by whole pixels, up to ``strength`` of a side each way; beyond their edge
    they go on as in a mirror."""
    height, width = pixels.shape[-2:]
    most = np.array([int(strength * width), int(strength * height)])
    matrices = unit(len(chances))
    matrices[:, :, 2] = [rng.integers(-most, most + 1) for rng in chances]
    return warped(pixels, matrices)


@dataclass(frozen=True)
class Crop(PictureEnrichment):
    """``strength`` is the longest shift as a share of a side: 4 of 32 pixels."""

    strength: float = number(0.125, above=0, most=0.5)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """See ``shifted``."""
        return shifted(pixels, chances, self.strength)


ENRICHMENTS.add("crop", Enrichment(Crop, "pictures", USUAL))
