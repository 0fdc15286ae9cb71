"""What every enrichment of pictures shares: its settings, and how it is applied to a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.augment.registry import setting

if TYPE_CHECKING:
    from torch import Tensor

Chances = Sequence[np.random.Generator]


@dataclass(frozen=True)
class PictureEnrichment(ABC):
    """Settings that all have, and the joint: a batch of pictures and a generator each in, the batch
    in other forms out.

    ``share``: of the pictures, those that are changed. ``order``: where it stands among others,
    which are applied one after the other; ``needs_colours``: whether it reads values as colours, so
    that it must come before a model's own scaling.
    """

    share: float = setting(1.0, above=0, most=1)
    order: ClassVar[int] = 0
    needs_colours: ClassVar[bool] = False

    @abstractmethod
    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Pictures [n, channels, H, W] in [0, 1] in other forms of the same shape and range, all
        chance of picture k coming from ``chances[k]``: its form depends on nothing else."""

    def forms(self, pixels: Tensor, chances: Chances) -> Tensor:
        """The batch with a ``share`` of its pictures changed."""
        import torch

        chosen = [k for k, rng in enumerate(chances) if rng.random() < self.share]
        if not chosen:
            return pixels
        places = torch.tensor(chosen)
        changed = self.change(pixels[places], [chances[k] for k in chosen])
        return pixels.index_copy(0, places, changed)

    def ready(self) -> None:
        """Load what it needs; raises ``MachineError`` or ``RecipeError`` where that is missing."""
        return
