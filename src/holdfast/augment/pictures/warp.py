"""Geometric augmentations: shifts, rotations, scales and flips; and a test whether flipped images
keep their class.

Shifts, rotations, scales and shears are one matrix per image. Before images are flipped, a linear
classifier of coarse pixels is fitted on some folds and predicts the images of the others, unchanged
and flipped. If left and right matter (digits, letters), it is far better on unchanged images; if
not, it is about equally good on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from holdfast.augment.registry import Chances, PictureEnrichment, enrichment
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.settings import setting
from holdfast.core.wording import percent_phrase

if TYPE_CHECKING:
    from torch import Tensor

Matrices = npt.NDArray[np.float64]
RATIO = 4 / 3
BY_EVIDENCE, YES, NO = "by evidence", "yes", "no"
USUAL = "common for training on small images from random weights (1512.03385, section 4.2)"


def warped(pixels: Tensor, matrices: Matrices) -> Tensor:
    """Images [n, channels, H, W] transformed by ``matrices`` [n, 2, 3] with bilinear interpolation;
    reflected beyond the edge.

    A matrix maps a point of the new image to the point of the old one, both as (x, y, 1) from the
    centre in pixels.
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
    """Identity matrices [count, 2, 3]."""
    return np.tile(np.array([[1.0, 0, 0], [0, 1, 0]]), (count, 1, 1))


def turns(degrees: npt.NDArray[np.float64]) -> Matrices:
    """Matrices that rotate an image counterclockwise by these angles [n]."""
    matrices, angle = unit(len(degrees)), np.deg2rad(degrees)
    matrices[:, 0, 0], matrices[:, 0, 1] = np.cos(angle), -np.sin(angle)
    matrices[:, 1, 0], matrices[:, 1, 1] = np.sin(angle), np.cos(angle)
    return matrices


def shifted(pixels: Tensor, chances: Chances, strength: float) -> Tensor:
    """Images shifted by whole pixels, up to ``strength`` of a side in each direction; reflected
    beyond the edge."""
    height, width = pixels.shape[-2:]
    most = np.array([int(strength * width), int(strength * height)])
    matrices = unit(len(chances))
    matrices[:, :, 2] = [rng.integers(-most, most + 1) for rng in chances]
    return warped(pixels, matrices)


@enrichment("crop", "pictures", USUAL)
@dataclass(frozen=True)
class Crop(PictureEnrichment):
    """Random crop: pad the image and cut it out at a shifted position. ``strength`` is the largest
    shift as a share of a side: 4 of 32 pixels."""

    strength: float = setting(0.125, above=0, most=0.5)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """See ``shifted``."""
        return shifted(pixels, chances, self.strength)


@enrichment("flip", "pictures", USUAL)
@dataclass(frozen=True)
class Flip(PictureEnrichment):
    """Horizontal flip. ``share`` is the share of flipped images."""

    share: float = setting(0.5, above=0, most=1)
    order: ClassVar[int] = 0

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Flip all images."""
        return pixels.flip(-1)


@enrichment("usual", "pictures", USUAL)
@dataclass(frozen=True)
class Usual(PictureEnrichment):
    """The common augmentation for small images: shifts, and horizontal flips if the rows support
    them.

    ``strength`` is the largest shift as a share of a side; ``mirror`` whether half of the images
    are flipped: ``by evidence`` (``in_a_mirror``, decided before the first step), ``yes`` or
    ``no``."""

    strength: float = setting(0.125, above=0, most=0.5)
    mirror: str = setting(BY_EVIDENCE, choices=(BY_EVIDENCE, YES, NO))
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Shift the images, and flip each with probability 0.5 if ``mirror`` is ``yes``."""
        import torch

        moved = shifted(pixels, chances, self.strength)
        if self.mirror != YES:
            return moved
        turned = torch.tensor([rng.random() < 0.5 for rng in chances])
        return torch.where(turned.view(-1, 1, 1, 1), moved.flip(-1), moved)


@enrichment(
    "resize", "pictures", "common for training on large images from random weights (1409.4842)"
)
@dataclass(frozen=True)
class Resize(PictureEnrichment):
    """Random resized crop: a part of the image resized to full size (1409.4842). ``least`` is the
    smallest share of the area."""

    least: float = setting(0.35, above=0, most=1)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Resize a random part of each image, with ``least`` … 1 of its area and an aspect ratio of
        3:4 … 4:3, to the full size."""
        height, width = pixels.shape[-2:]
        matrices = unit(len(chances))
        for k, rng in enumerate(chances):
            area = rng.uniform(self.least, 1)
            ratio = np.exp(rng.uniform(-np.log(RATIO), np.log(RATIO)))
            lengths = np.minimum(1, np.sqrt([area * ratio, area / ratio]))
            room = (1 - lengths) / 2 * np.array([width, height])
            matrices[k, 0, 0], matrices[k, 1, 1] = lengths
            matrices[k, :, 2] = rng.uniform(-room, room)
        return warped(pixels, matrices)


@enrichment("rotate", "pictures", "for images without an upright orientation")
@dataclass(frozen=True)
class Rotate(PictureEnrichment):
    """Rotation about the centre by a random angle. ``degrees`` is the largest in each direction."""

    degrees: float = setting(15.0, above=0, most=180)
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Rotate each image by its angle; reflected beyond the edge."""
        angles = np.array([rng.uniform(-self.degrees, self.degrees) for rng in chances])
        return warped(pixels, turns(angles))


SIDE, FOLDS = 14, 5
RIDGE = 0.1
# Share of the classifier's gain over the majority class that flipping may lose.
ALLOWED = 0.25
# Standard errors that a loss, and the gain itself, must exceed to count.
SURE = 2.0


@dataclass(frozen=True, slots=True)
class Mirror:
    """Out-of-fold accuracy of the classifier on unchanged images (``plain``), on flipped images
    (``mirrored``) and of the majority-class baseline (``chance``). ``alike`` is whether flipped
    images may be used for training, ``because`` the reason."""

    plain: float
    mirrored: float
    chance: float
    alike: bool
    because: str


def in_a_mirror(pixels: Tensor, labels: Ints, seed: int) -> Mirror:
    """Test whether flipped images keep their class, on images [n, channels, H, W] in [0, 1] with
    class indices ``labels`` [n].

    They may be used if flipping loses at most a quarter of the classifier's gain over the
    majority-class baseline, or less than two standard errors. They may not be used if the
    classifier has no clear gain.
    """
    import torch

    # Means over a coarse grid [n, features].
    length = min(SIDE, *pixels.shape[-2:])
    grids = (
        torch.nn.functional.adaptive_avg_pool2d(one, length) for one in (pixels, pixels.flip(-1))
    )
    plain, mirrored = (grid.flatten(1).numpy().astype(np.float64) for grid in grids)
    right, wrong_way = _out_of_fold(plain, mirrored, labels, seed)
    accuracy, mirrored_accuracy = float(right.mean()), float(wrong_way.mean())
    chance = float(np.bincount(labels).max() / len(labels))
    error = np.sqrt(max(chance * (1 - chance), 1e-9) / len(labels))
    sentence = (
        f"a linear probe on pixels has an accuracy of {percent_phrase(accuracy)} on "
        "unchanged images and "
        f"{percent_phrase(mirrored_accuracy)} on flipped ones"
    )
    if accuracy - chance < SURE * error:
        because = (
            f"{sentence} (most frequent class {percent_phrase(chance)}): this gain is "
            "too small for a decision"
        )
        return Mirror(accuracy, mirrored_accuracy, chance, False, because)
    gaps = right.astype(float) - wrong_way
    spread = gaps.std(ddof=1) / np.sqrt(len(gaps))
    lost = (accuracy - mirrored_accuracy) / (accuracy - chance)
    alike = bool(lost <= ALLOWED or accuracy - mirrored_accuracy < SURE * spread)
    return Mirror(accuracy, mirrored_accuracy, chance, alike, sentence)


def _out_of_fold(plain: Floats, mirrored: Floats, labels: Ints, seed: int) -> tuple[Ints, Ints]:
    """Whether an out-of-fold ridge regression on class indicators predicts each image [n]
    correctly, unchanged and flipped."""
    classes = int(labels.max()) + 1
    fold = generator(seed, "enrich", "mirror").permutation(len(labels)) % FOLDS
    right, other = (np.zeros(len(labels), dtype=np.int64) for _ in range(2))
    for held in range(FOLDS):
        inside, outside = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        if not len(inside) or not len(outside):
            continue
        centre = plain[inside].mean(axis=0)
        x, y = plain[inside] - centre, np.eye(classes)[labels[inside]]
        penalty = RIDGE * max(float((x**2).sum()) / x.shape[1], 1e-9)
        gram = x.T @ x + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x.T @ (y - y.mean(axis=0)))
        for correct, rows in ((right, plain), (other, mirrored)):
            scores = (rows[outside] - centre) @ weights + y.mean(axis=0)
            correct[outside] = scores.argmax(axis=1) == labels[outside]
    return right, other
