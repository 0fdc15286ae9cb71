"""TrivialAugment: one operation of fourteen on each picture, of a strength of chance (2103.10158).

The wide space of the paper, with strengths in 31 even steps; shifts are at most a third of a side,
whatever the side, where the paper has 32 pixels of 224.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.pictures.colours import blended, brighter, contrasted, saturated
from holdfast.augment.pictures.warp import turns, unit, warped
from holdfast.augment.registry import enrichment

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 31
Strengths = npt.NDArray[np.float64]
Operation = Callable[["Tensor", Strengths], "Tensor"]


def _warp(place: tuple[int, int], most: float) -> Operation:
    """Shears (place in the square part) and shifts (last column) of up to ``most``."""

    def change(pixels: Tensor, strengths: Strengths) -> Tensor:
        matrices = unit(len(strengths))
        side = pixels.shape[-1 - place[0]] if place[1] == 2 else 1
        matrices[:, place[0], place[1]] = most * side * strengths
        return warped(pixels, matrices)

    return change


def _colour(way: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def change(pixels: Tensor, strengths: Strengths) -> Tensor:
        import torch

        return way(pixels, torch.from_numpy(1 + 0.99 * strengths).float())

    return change


def _rotated(pixels: Tensor, strengths: Strengths) -> Tensor:
    return warped(pixels, turns(135.0 * strengths))


def sharpened(pixels: Tensor, factors: Tensor) -> Tensor:
    """Towards a picture smoothed by 3 × 3 (the middle counts five times), or away from it; the
    outermost pixels stay."""
    import torch

    kernel = torch.ones(3, 3)
    kernel[1, 1] = 5
    kernel = (kernel / kernel.sum()).expand(pixels.shape[1], 1, 3, 3)
    smooth = pixels.clone()
    if min(pixels.shape[-2:]) > 2:
        inner = torch.nn.functional.conv2d(pixels, kernel, groups=pixels.shape[1])
        smooth[:, :, 1:-1, 1:-1] = inner
    return blended(pixels, smooth, factors)


def posterized(pixels: Tensor, strengths: Strengths) -> Tensor:
    """The first 8 … 2 bits of each value."""
    import torch

    bits = 8 - np.round(6 * np.abs(strengths))
    step = torch.from_numpy(2.0 ** (8 - bits)).float().view(-1, 1, 1, 1)
    return torch.floor(torch.round(pixels * 255) / step) * step / 255


def solarized(pixels: Tensor, strengths: Strengths) -> Tensor:
    """Values from a threshold of 1 … 0 on turned to their contrary."""
    import torch

    threshold = torch.from_numpy(1 - np.abs(strengths)).float().view(-1, 1, 1, 1)
    return torch.where(pixels >= threshold, 1 - pixels, pixels)


def autocontrasted(pixels: Tensor, strengths: Strengths) -> Tensor:
    """Each channel stretched from its least and largest value to 0 and 1; one that is of one value
    stays."""
    least = pixels.amin(dim=(2, 3), keepdim=True)
    span = pixels.amax(dim=(2, 3), keepdim=True) - least
    return pixels.where(span == 0, (pixels - least) / span.clamp(min=1e-6))


def equalized(pixels: Tensor, strengths: Strengths) -> Tensor:
    """Each channel with its 256 values made as frequent as one another: every value becomes its
    share of smaller and equal ones."""
    import torch

    count, channels = pixels.shape[:2]
    flat = torch.round(pixels * 255).long().reshape(count * channels, -1)
    sums = torch.zeros(len(flat), 256).scatter_add_(1, flat, torch.ones_like(flat).float())
    shares = sums.cumsum(dim=1)
    first = shares.gather(1, flat.amin(dim=1, keepdim=True))
    span = shares[:, -1:] - first
    table = torch.where(span > 0, (shares - first) / span.clamp(min=1), shares / shares[:, -1:])
    found = table.gather(1, flat).clamp(0, 1).reshape(pixels.shape)
    return pixels.where((span <= 0).view(count, channels, 1, 1), found)


def same(pixels: Tensor, strengths: Strengths) -> Tensor:
    """As they are."""
    return pixels


OPERATIONS: dict[str, Operation] = {
    "identity": same,
    "shear_x": _warp((0, 1), 0.99),
    "shear_y": _warp((1, 0), 0.99),
    "shift_x": _warp((0, 2), 1 / 3),
    "shift_y": _warp((1, 2), 1 / 3),
    "rotate": _rotated,
    "brightness": _colour(brighter),
    "saturation": _colour(saturated),
    "contrast": _colour(contrasted),
    "sharpness": _colour(sharpened),
    "posterize": posterized,
    "solarize": solarized,
    "autocontrast": autocontrasted,
    "equalize": equalized,
}


@enrichment(
    "trivial_augment", "pictures", "0.5 to 1 point over shifts and mirrors, whole sets (2103.10158)"
)
@dataclass(frozen=True)
class TrivialAugment(PictureEnrichment):
    """One operation of chance a picture, at a strength of chance either way."""

    order: ClassVar[int] = 2
    needs_colours: ClassVar[bool] = True

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Each picture by its operation."""
        import torch

        names = list(OPERATIONS)
        which = np.array([rng.integers(len(names)) for rng in chances])
        strengths = np.array(
            [rng.integers(STEPS) / (STEPS - 1) * rng.choice([-1.0, 1.0]) for rng in chances]
        )
        for number, name in enumerate(names):
            here = np.flatnonzero(which == number)
            if len(here):
                places = torch.from_numpy(here)
                changed = OPERATIONS[name](pixels[places], strengths[here])
                pixels = pixels.index_copy(0, places, changed)
        return pixels
