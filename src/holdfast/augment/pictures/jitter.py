"""Colour jitter: brightness, contrast and saturation, each by a factor of chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number

if TYPE_CHECKING:
    from torch import Tensor

# ITU-R BT.601, as the usual libraries have it.
LUMA = (0.299, 0.587, 0.114)


def grey(pixels: Tensor) -> Tensor:
    """The brightness [n, 1, H, W] of pictures of three channels, or of one."""
    import torch

    if pixels.shape[1] != len(LUMA):
        return pixels.mean(dim=1, keepdim=True)
    return (pixels * torch.tensor(LUMA).view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


def blended(pixels: Tensor, towards: Tensor, factors: Tensor) -> Tensor:
    """``factors`` [n] of each picture and the rest of ``towards``: 1 leaves it as it is."""
    by = factors.view(-1, 1, 1, 1)
    return (pixels * by + towards * (1 - by)).clamp(0, 1)


def brighter(pixels: Tensor, factors: Tensor) -> Tensor:
    """Towards black, or away from it."""
    return blended(pixels, pixels.new_zeros(()), factors)


def contrasted(pixels: Tensor, factors: Tensor) -> Tensor:
    """Towards the mean brightness of each picture, or away from it."""
    return blended(pixels, grey(pixels).mean(dim=(1, 2, 3), keepdim=True), factors)


def saturated(pixels: Tensor, factors: Tensor) -> Tensor:
    """Towards grey, or away from it."""
    return blended(pixels, grey(pixels), factors)


WAYS = (brighter, contrasted, saturated)


@dataclass(frozen=True)
class Jitter(PictureEnrichment):
    """``strength`` s draws each factor from 1 − s … 1 + s."""

    strength: float = number(0.4, above=0, most=1)
    order: ClassVar[int] = 2
    needs_colours: ClassVar[bool] = True

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Each picture by its three factors, in its order."""
        import torch

        orders = np.array([rng.permutation(len(WAYS)) for rng in chances])
        drawn = [rng.uniform(1 - self.strength, 1 + self.strength, len(WAYS)) for rng in chances]
        factors = torch.tensor(np.array(drawn), dtype=torch.float32)
        for turn in range(len(WAYS)):
            for which, way in enumerate(WAYS):
                here = torch.from_numpy(np.flatnonzero(orders[:, turn] == which))
                if len(here):
                    changed = way(pixels[here], factors[here, which])
                    pixels = pixels.index_copy(0, here, changed)
        return pixels


ENRICHMENTS.add("jitter", Enrichment(Jitter, "pictures", "where light and colour say nothing"))
