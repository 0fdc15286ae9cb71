"""Mirror: left and right change places; only where a picture means the same in a mirror."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.pictures.crop import USUAL
from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Flip(PictureEnrichment):
    """``share`` is how many are mirrored. See ``orientation.py`` for where they may be."""

    share: float = number(0.5, above=0, most=1)
    order: ClassVar[int] = 0

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """All of them in a mirror."""
        return pixels.flip(-1)


ENRICHMENTS.add("flip", Enrichment(Flip, "pictures", USUAL))
