"""Rotation about the centre by an angle of chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.pictures.warp import turns, warped
from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rotate(PictureEnrichment):
    """``degrees`` is the largest angle either way."""

    degrees: float = number(15, above=0, most=180)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Each picture turned by its angle; beyond the edge it goes on as in a mirror."""
        angles = np.array([rng.uniform(-self.degrees, self.degrees) for rng in chances])
        return warped(pixels, turns(angles))


ENRICHMENTS.add("rotate", Enrichment(Rotate, "pictures", "for pictures without an upright"))
