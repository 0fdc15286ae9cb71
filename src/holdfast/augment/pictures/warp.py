"""Where each point of a picture comes from: shifts, turns, scales and mirrors; and whether pictures
mean the same in a mirror, which is asked of the rows before any is mirrored.

Shifts, turns, scales and shears are one matrix a picture. Of mirrors a linear classifier of coarse
pixels is fitted on some folds and asked about the pictures of the others, as they are and in a
mirror. Where left and right matter (digits, letters) it knows the first far better; where they do
not, both alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from holdfast.augment.registry import Chances, PictureEnrichment, enrichment, setting
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

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
    matrices, angle = unit(len(degrees)), np.deg2rad(degrees)
    matrices[:, 0, 0], matrices[:, 0, 1] = np.cos(angle), -np.sin(angle)
    matrices[:, 1, 0], matrices[:, 1, 1] = np.sin(angle), np.cos(angle)
    return matrices


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
    are mirrored: ``by evidence`` (``in_a_mirror``, settled before the first step), ``yes`` or
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
            lengths = np.minimum(1, np.sqrt([area * ratio, area / ratio]))
            room = (1 - lengths) / 2 * np.array([width, height])
            matrices[k, 0, 0], matrices[k, 1, 1] = lengths
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


SIDE, FOLDS = 14, 5
RIDGE = 0.1
# Of what the classifier knows beyond chance, so much may be lost in a mirror.
ALLOWED = 0.25
# Standard errors that a loss, and the knowledge itself, must be above to count.
SURE = 2.0


@dataclass(frozen=True, slots=True)
class Mirror:
    """Accuracy of the classifier on pictures it was not fitted on, as they are (``plain``) and in a
    mirror (``mirrored``), beside the commonest class (``chance``); ``alike`` says whether mirrored
    pictures may be learned from, ``because`` why."""

    plain: float
    mirrored: float
    chance: float
    alike: bool
    because: str


def in_a_mirror(pixels: Tensor, labels: Ints, seed: int) -> Mirror:
    """Look at pictures [n, channels, H, W] in [0, 1] with class indices ``labels`` [n].

    Mirrored ones may be used where they lose at most a quarter of what the classifier knows beyond
    chance, or no more than chance explains; not where it knows nothing to go by.
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
        f"a linear probe of pixels is right on {accuracy:.0%} of pictures, "
        f"{mirrored_accuracy:.0%} in a mirror"
    )
    if accuracy - chance < SURE * error:
        because = f"{sentence} (the commonest class {chance:.0%}): it knows too little to tell"
        return Mirror(accuracy, mirrored_accuracy, chance, False, because)
    gaps = right.astype(float) - wrong_way
    spread = gaps.std(ddof=1) / np.sqrt(len(gaps))
    lost = (accuracy - mirrored_accuracy) / (accuracy - chance)
    alike = bool(lost <= ALLOWED or accuracy - mirrored_accuracy < SURE * spread)
    return Mirror(accuracy, mirrored_accuracy, chance, alike, sentence)


def _out_of_fold(plain: Floats, mirrored: Floats, labels: Ints, seed: int) -> tuple[Ints, Ints]:
    """Whether each picture is recognised by a ridge regression on the classes' indicators that did
    not see it, as it is and in a mirror [n]."""
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
