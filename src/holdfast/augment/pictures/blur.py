"""Gaussian blur of a width of chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number

if TYPE_CHECKING:
    from torch import Tensor

REACH = 3.0  # widths of the bell that are added up on each side


def blurred(pixels: Tensor, widths: Tensor) -> Tensor:
    """Each picture convolved with exp(−x² ÷ 2σ²) of its σ in ``widths`` [n], in pixels and above 0,
    along both sides; the edge goes on as in a mirror."""
    import torch

    count, channels, height, width = pixels.shape
    reach = max(1, min(int(np.ceil(REACH * float(widths.max()))), height - 1, width - 1))
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    bells = torch.exp(-(places[None] ** 2) / (2 * widths[:, None] ** 2))
    bells = bells / bells.sum(dim=1, keepdim=True)
    kernels = bells.repeat_interleave(channels, dim=0)
    flat = pixels.reshape(1, count * channels, height, width)
    for shape, pad in (
        ((-1, 1, 1, 2 * reach + 1), (reach, reach, 0, 0)),
        ((-1, 1, 2 * reach + 1, 1), (0, 0, reach, reach)),
    ):
        wide = torch.nn.functional.pad(flat, pad, mode="reflect")
        flat = torch.nn.functional.conv2d(wide, kernels.reshape(shape), groups=count * channels)
    return flat.reshape(pixels.shape).clamp(0, 1)


@dataclass(frozen=True)
class Blur(PictureEnrichment):
    """``most`` is the largest width in pixels; the least is a tenth of one."""

    share: float = number(0.5, above=0, most=1)
    most: float = number(1.0, above=0.1, most=50)
    order: ClassVar[int] = 3

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Each picture by a width of its own."""
        import torch

        # One by one: how far the sum reaches must not depend on the company.
        widths = [torch.tensor([rng.uniform(0.1, self.most)]).float() for rng in chances]
        return torch.cat([blurred(pixels[k : k + 1], w) for k, w in enumerate(widths)])


ENRICHMENTS.add("blur", Enrichment(Blur, "pictures", "where sharpness says nothing (2002.05709)"))
