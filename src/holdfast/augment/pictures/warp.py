"""Where each point of a picture comes from: shifts, turns, scales and mirrors.

Shifts, turns, scales and shears are one matrix a picture. A mirror means the same only where left
and right do not matter (``orientation.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.registry import enrichment, setting

if TYPE_CHECKING:
    from torch import Tensor

Matrices = npt.NDArray[np.float64]
RATIO = 4 / 3
BY_EVIDENCE, YES, NO = "by evidence", "yes", "no"
USUAL = "the usual region of small pictures from random weights (1512.03385, section 4.2)"


def warped(pixels: Tensor, matrices: Matrices) -> Tensor:
    """Pictures [n, channels, H, W] read through ``matrices`` [n, 2, 3], bilinear; beyond its edge a
    picture goes on as in a mirror.

    A matrix takes a point of the new picture to the point of the old one that it shows, both as
    (x, y, 1) from the centre in pixels.
    """
    import torch

    height, width = pixels.shape[-2:]
    # ``affine_grid`` counts from −1 to 1 along each side.
    half = np.array([width / 2, height / 2])
    theta = matrices.copy()
    theta[:, :, :2] *= half[None, None, :] / half[None, :, None]
    theta[:, :, 2] /= half[None, :]
    where = torch.from_numpy(theta.astype(np.float32))
    grid = torch.nn.functional.affine_grid(where, list(pixels.shape), align_corners=False)
    return torch.nn.functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    ).clamp(0, 1)


def unit(count: int) -> Matrices:
    """Matrices [count, 2, 3] that change nothing."""
    return np.tile(np.array([[1.0, 0, 0], [0, 1, 0]]), (count, 1, 1))


def turns(degrees: npt.NDArray[np.float64]) -> Matrices:
    """Matrices that turn a picture against the clock by these angles [n]."""
    found, angle = unit(len(degrees)), np.deg2rad(degrees)
    found[:, 0, 0], found[:, 0, 1] = np.cos(angle), -np.sin(angle)
    found[:, 1, 0], found[:, 1, 1] = np.sin(angle), np.cos(angle)
    return found


def shifted(pixels: Tensor, chances: Chances, strength: float) -> Tensor:
    """Pictures shifted by whole pixels, up to ``strength`` of a side each way; beyond their edge
    they go on as in a mirror."""
    height, width = pixels.shape[-2:]
    most = np.array([int(strength * width), int(strength * height)])
    matrices = unit(len(chances))
    matrices[:, :, 2] = [rng.integers(-most, most + 1) for rng in chances]
    return warped(pixels, matrices)


@enrichment("crop", "pictures", USUAL)
@dataclass(frozen=True)
class Crop(PictureEnrichment):
    """Random crop, which is to pad a picture and cut it out elsewhere. ``strength`` is the longest
    shift as a share of a side: 4 of 32 pixels."""

    strength: float = setting(0.125, above=0, most=0.5)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """See ``shifted``."""
        return shifted(pixels, chances, self.strength)


@enrichment("flip", "pictures", USUAL)
@dataclass(frozen=True)
class Flip(PictureEnrichment):
    """Mirror: left and right change places. ``share`` is how many are mirrored."""

    share: float = setting(0.5, above=0, most=1)
    order: ClassVar[int] = 0

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """All of them in a mirror."""
        return pixels.flip(-1)


@enrichment("usual", "pictures", USUAL)
@dataclass(frozen=True)
class Usual(PictureEnrichment):
    """What small pictures are usually given: shifts, and mirrors where the rows bear them out.

    ``strength`` is the longest shift as a share of a side; ``mirror`` whether half of the pictures
    are mirrored: ``by evidence`` (``orientation.py``, settled before the first step), ``yes`` or
    ``no``."""

    strength: float = setting(0.125, above=0, most=0.5)
    mirror: str = setting(BY_EVIDENCE, choices=(BY_EVIDENCE, YES, NO))
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Shifted, and by chance mirrored where ``mirror`` is ``yes``."""
        import torch

        moved = shifted(pixels, chances, self.strength)
        if self.mirror != YES:
            return moved
        turned = torch.tensor([rng.random() < 0.5 for rng in chances])
        return torch.where(turned.view(-1, 1, 1, 1), moved.flip(-1), moved)


@enrichment("resize", "pictures", "usual for large pictures from random weights (1409.4842)")
@dataclass(frozen=True)
class Resize(PictureEnrichment):
    """Random resized crop: a part of the picture at its full size (1409.4842). ``least`` is the
    smallest share of the area that is shown."""

    least: float = setting(0.35, above=0, most=1)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """A part of each picture of ``least`` … 1 of its area, of a ratio of sides of 3:4 … 4:3, at
        a place of chance inside it, stretched to the whole."""
        height, width = pixels.shape[-2:]
        matrices = unit(len(chances))
        for k, rng in enumerate(chances):
            area = rng.uniform(self.least, 1)
            ratio = np.exp(rng.uniform(-np.log(RATIO), np.log(RATIO)))
            sides = np.minimum(1, np.sqrt([area * ratio, area / ratio]))
            room = (1 - sides) / 2 * np.array([width, height])
            matrices[k, 0, 0], matrices[k, 1, 1] = sides
            matrices[k, :, 2] = rng.uniform(-room, room)
        return warped(pixels, matrices)


@enrichment("rotate", "pictures", "for pictures without an upright")
@dataclass(frozen=True)
class Rotate(PictureEnrichment):
    """Rotation about the centre by an angle of chance. ``degrees`` is the largest either way."""

    degrees: float = setting(15.0, above=0, most=180)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Each picture turned by its angle; beyond the edge it goes on as in a mirror."""
        angles = np.array([rng.uniform(-self.degrees, self.degrees) for rng in chances])
        return warped(pixels, turns(angles))
