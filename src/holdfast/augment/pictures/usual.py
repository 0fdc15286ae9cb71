"""What small pictures are usually given: shifts, and mirrors where the rows bear them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.augment.pictures.base import Chances, PictureEnrichment
from holdfast.augment.pictures.crop import USUAL, shifted
from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number, words

if TYPE_CHECKING:
    from torch import Tensor

BY_EVIDENCE, YES, NO = "by evidence", "yes", "no"


@dataclass(frozen=True)
class Usual(PictureEnrichment):
    """``strength`` is the longest shift as a share of a side; ``mirror`` whether half of the
    pictures are mirrored: ``by evidence`` (``orientation.py``, settled before the first step),
    ``yes`` or ``no``."""

    strength: float = number(0.125, above=0, most=0.5)
    mirror: str = words(BY_EVIDENCE, choices=(BY_EVIDENCE, YES, NO))
    order: ClassVar[int] = 1

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Shifted, and by chance mirrored where ``mirror`` is ``yes``."""
        import torch

        moved = shifted(pixels, chances, self.strength)
        if self.mirror != YES:
            return moved
        turned = torch.tensor([rng.random() < 0.5 for rng in chances])
        return torch.where(turned.view(-1, 1, 1, 1), moved.flip(-1), moved)


ENRICHMENTS.add("usual", Enrichment(Usual, "pictures", USUAL))
