"""Mixup and CutMix: two pictures in one, and their labels by their shares.

mixup (1710.09412): x = λ x₁ + (1 − λ) x₂. CutMix (1905.04899): a rectangle of 1 − λ of the area of
x₁ comes from x₂. λ ~ Beta(α, α); in both the loss is λ CE(y₁) + (1 − λ) CE(y₂), with λ the share of
the picture that is x₁'s. The second picture is any of the training part, drawn by the chance of the
row and not of its batch.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.augment.registry import Chances, PictureEnrichment, enrichment, setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from holdfast.core.updates import ForwardPass


PARTNERS, SHARES = "partners", "shares"


@dataclass(frozen=True)
class Mixing(PictureEnrichment):
    """``share`` is how many pictures are mixed; ``alpha`` the α of the shares' Beta."""

    share: float = setting(0.5, above=0, most=1)
    alpha: float = setting(1.0, above=0, most=100)
    order: ClassVar[int] = 9

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """A picture alone is not mixed."""
        return pixels

    @abstractmethod
    def mixed(
        self, pixels: Tensor, others: Tensor, shares: np.ndarray, chances: Chances
    ) -> tuple[Tensor, np.ndarray]:
        """Pictures [n, channels, H, W] of which about ``shares`` [n] is of ``pixels`` and the rest
        of ``others``; and what the share came to."""


@enrichment("mixup", "pictures", "about a point on CIFAR-10 whole (1710.09412)")
@dataclass(frozen=True)
class ImageMixup(Mixing):
    """Each value is the sum of the two pictures' by their shares."""

    alpha: float = setting(0.2, above=0, most=100)

    def mixed(
        self, pixels: Tensor, others: Tensor, shares: np.ndarray, chances: Chances
    ) -> tuple[Tensor, np.ndarray]:
        """See ``Mixing.mixed``."""
        import torch

        by = torch.from_numpy(shares).float().view(-1, 1, 1, 1)
        return pixels * by + others * (1 - by), shares


@enrichment("cutmix", "pictures", "about a point on CIFAR-10 whole (1905.04899)")
@dataclass(frozen=True)
class CutMix(Mixing):
    """A rectangle of the picture's own ratio of sides comes from the other."""

    def mixed(
        self, pixels: Tensor, others: Tensor, shares: np.ndarray, chances: Chances
    ) -> tuple[Tensor, np.ndarray]:
        """See ``Mixing.mixed``; what reaches over the edge is not counted."""
        height, width = pixels.shape[-2:]
        found, came_to = pixels.clone(), np.empty(len(chances))
        for k, rng in enumerate(chances):
            cut = np.sqrt(1 - shares[k])
            half = int(cut * height) // 2, int(cut * width) // 2
            middle = int(rng.integers(height)), int(rng.integers(width))
            rows, columns = (
                slice(max(0, middle[axis] - half[axis]), min(side, middle[axis] + half[axis]))
                for axis, side in enumerate((height, width))
            )
            found[k, :, rows, columns] = others[k, :, rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            came_to[k] = 1 - area / (height * width)
        return found, came_to


@dataclass(frozen=True, slots=True)
class MixedLabels:
    """The loss term: a mixed picture's loss is that of its two labels by their shares."""

    name: ClassVar[str] = "mixed_labels"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if PARTNERS not in passed.batch:
            return losses
        share = passed.batch[SHARES].to(losses.dtype).to(losses.device)
        logits = passed.output.logits.float()
        others = torch.nn.functional.cross_entropy(logits, passed.batch[PARTNERS], reduction="none")
        return share * losses + (1 - share) * others
