"""Cut-out: a square of the picture is blanked (1708.04552)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number

if TYPE_CHECKING:
    from torch import Tensor


def erased(pixels: Tensor, chances: Chances, strength: float = 0.25) -> Tensor:
    """Each picture with a square of ``strength`` of its shorter side set to its mean colour; the
    square's centre is anywhere, so that it may reach over the edge."""
    height, width = pixels.shape[-2:]
    side = max(1, round(strength * min(height, width)))
    found = pixels.clone()
    means = pixels.mean(dim=(2, 3))
    for k, rng in enumerate(chances):
        top = int(rng.integers(height)) - side // 2
        left = int(rng.integers(width)) - side // 2
        rows, columns = slice(max(0, top), top + side), slice(max(0, left), left + side)
        found[k, :, rows, columns] = means[k, :, None, None]
    return found


@dataclass(frozen=True)
class Erase(PictureEnrichment):
    """``strength`` is the square's side as a share of the picture's shorter one."""

    strength: float = number(0.25, above=0, most=1)
    order: ClassVar[int] = 4

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """See ``erased``."""
        return erased(pixels, chances, self.strength)


ENRICHMENTS.add(
    "erase", Enrichment(Erase, "pictures", "half a point to one on CIFAR-10 whole (1708.04552)")
)
