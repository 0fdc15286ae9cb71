"""Augmentations of pixel values: colour jitter, blur, cutout; and TrivialAugment, one of fourteen
operations per image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from holdfast.augment.pictures.warp import turns, unit, warped
from holdfast.augment.registry import Chances, PictureEnrichment, enrichment
from holdfast.core.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

REACH = 3.0  # standard deviations that the kernel extends to each side
# ITU-R BT.601, as in common libraries.
LUMA = (0.299, 0.587, 0.114)


def grey(pixels: Tensor) -> Tensor:
    """The brightness [n, 1, H, W] of images with three channels or one."""
    import torch

    if pixels.shape[1] != len(LUMA):
        return pixels.mean(dim=1, keepdim=True)
    return (pixels * torch.tensor(LUMA).view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


def blended(pixels: Tensor, towards: Tensor, factors: Tensor) -> Tensor:
    """A weighted sum of each image (weight ``factors`` [n]) and ``towards``; 1 changes nothing."""
    by = factors.view(-1, 1, 1, 1)
    return (pixels * by + towards * (1 - by)).clamp(0, 1)


def brighter(pixels: Tensor, factors: Tensor) -> Tensor:
    """Change the brightness: towards black, or away from it."""
    return blended(pixels, pixels.new_zeros(()), factors)


def contrasted(pixels: Tensor, factors: Tensor) -> Tensor:
    """Change the contrast: towards the mean brightness of each image, or away from it."""
    return blended(pixels, grey(pixels).mean(dim=(1, 2, 3), keepdim=True), factors)


def saturated(pixels: Tensor, factors: Tensor) -> Tensor:
    """Change the saturation: towards grey, or away from it."""
    return blended(pixels, grey(pixels), factors)


def blurred(pixels: Tensor, widths: Tensor) -> Tensor:
    """Each image convolved with exp(−x² ÷ 2σ²) along both sides; its σ in ``widths`` [n] is in
    pixels and above 0; reflected beyond the edge."""
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


@enrichment("jitter", "pictures", "if light and colour do not determine the class")
@dataclass(frozen=True)
class Jitter(PictureEnrichment):
    """Random brightness, contrast and saturation. ``strength`` s draws each factor from
    1 − s … 1 + s."""

    strength: float = setting(0.4, above=0, most=1)
    order: ClassVar[int] = 2
    needs_colours: ClassVar[bool] = True

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Apply the three factors of each image, in a random order."""
        import torch

        operations = (brighter, contrasted, saturated)
        orders = np.array([rng.permutation(len(operations)) for rng in chances])
        drawn = [
            rng.uniform(1 - self.strength, 1 + self.strength, len(operations)) for rng in chances
        ]
        factors = torch.tensor(np.array(drawn), dtype=torch.float32)
        for turn in range(len(operations)):
            for which, way in enumerate(operations):
                here = torch.from_numpy(np.flatnonzero(orders[:, turn] == which))
                if len(here):
                    changed = way(pixels[here], factors[here, which])
                    pixels = pixels.index_copy(0, here, changed)
        return pixels


@enrichment("blur", "pictures", "if sharpness does not determine the class (2002.05709)")
@dataclass(frozen=True)
class Blur(PictureEnrichment):
    """Gaussian blur with a random width. ``most`` is the largest width in pixels; the smallest is
    0.1."""

    share: float = setting(0.5, above=0, most=1)
    most: float = setting(1.0, above=0.1, most=50)
    order: ClassVar[int] = 3

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Blur each image with its own width."""
        import torch

        # One by one: the kernel size must not depend on the other images.
        widths = [torch.tensor([rng.uniform(0.1, self.most)]).float() for rng in chances]
        return torch.cat([blurred(pixels[k : k + 1], w) for k, w in enumerate(widths)])


@enrichment("erase", "pictures", "0.5 to 1 point on the full CIFAR-10 (1708.04552)")
@dataclass(frozen=True)
class Erase(PictureEnrichment):
    """Cutout: a square of the image is blanked (1708.04552). ``strength`` is the square's side as a
    share of the image's shorter side."""

    strength: float = setting(0.25, above=0, most=1)
    order: ClassVar[int] = 4

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Fill a square of each image with its mean colour; the square's centre may be anywhere, so
        the square may extend beyond the edge."""
        height, width = pixels.shape[-2:]
        length = max(1, round(self.strength * min(height, width)))
        result = pixels.clone()
        means = pixels.mean(dim=(2, 3))
        for k, rng in enumerate(chances):
            top = int(rng.integers(height)) - length // 2
            left = int(rng.integers(width)) - length // 2
            rows, columns = slice(max(0, top), top + length), slice(max(0, left), left + length)
            result[k, :, rows, columns] = means[k, :, None, None]
        return result


STEPS = 31
Strengths = npt.NDArray[np.float64]
Operation = Callable[["Tensor", Strengths], "Tensor"]


def _warp(place: tuple[int, int], most: float) -> Operation:
    """Shears (``place`` in the square part of the matrix) and shifts (last column) of up to
    ``most``."""

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
    """Change the sharpness: towards an image smoothed by a 3 × 3 kernel (centre weight 5), or away
    from it; the outermost pixels stay."""
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
    """Keep the first 8 … 2 bits of each value."""
    import torch

    bits = 8 - np.round(6 * np.abs(strengths))
    step = torch.from_numpy(2.0 ** (8 - bits)).float().view(-1, 1, 1, 1)
    return torch.floor(torch.round(pixels * 255) / step) * step / 255


def solarized(pixels: Tensor, strengths: Strengths) -> Tensor:
    """Invert the values at or above a threshold of 1 … 0."""
    import torch

    threshold = torch.from_numpy(1 - np.abs(strengths)).float().view(-1, 1, 1, 1)
    return torch.where(pixels >= threshold, 1 - pixels, pixels)


def autocontrasted(pixels: Tensor, strengths: Strengths) -> Tensor:
    """Stretch each channel so that its values range from 0 to 1; a constant channel stays."""
    least = pixels.amin(dim=(2, 3), keepdim=True)
    span = pixels.amax(dim=(2, 3), keepdim=True) - least
    return pixels.where(span == 0, (pixels - least) / span.clamp(min=1e-6))


def equalized(pixels: Tensor, strengths: Strengths) -> Tensor:
    """Equalize the histogram of each channel: every value becomes the share of values that are
    smaller or equal."""
    import torch

    count, channels = pixels.shape[:2]
    flat = torch.round(pixels * 255).long().reshape(count * channels, -1)
    sums = torch.zeros(len(flat), 256).scatter_add_(1, flat, torch.ones_like(flat).float())
    shares = sums.cumsum(dim=1)
    first = shares.gather(1, flat.amin(dim=1, keepdim=True))
    span = shares[:, -1:] - first
    table = torch.where(span > 0, (shares - first) / span.clamp(min=1), shares / shares[:, -1:])
    result = table.gather(1, flat).clamp(0, 1).reshape(pixels.shape)
    return pixels.where((span <= 0).view(count, channels, 1, 1), result)


def same(pixels: Tensor, strengths: Strengths) -> Tensor:
    """The unchanged images."""
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
    "trivial_augment",
    "pictures",
    "0.5 to 1 point more than shifts and flips on full data sets (2103.10158)",
)
@dataclass(frozen=True)
class TrivialAugment(PictureEnrichment):
    """One random operation per image, with a random strength in either direction."""

    order: ClassVar[int] = 2
    needs_colours: ClassVar[bool] = True

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Apply its operation to each image."""
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
