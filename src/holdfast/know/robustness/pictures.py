"""Pictures as a worse camera might have taken them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from holdfast.enrich.pictures.blur import blurred
from holdfast.enrich.pictures.crop import shifted

if TYPE_CHECKING:
    from torch import Tensor

# As shares: of the shorter side, of the range of values, of a side.
BLUR, NOISE, SHIFT = 0.02, 0.05, 0.1


def blur(pixels: Tensor, _: np.random.Generator) -> Tensor:
    """A bell of 2 % of the shorter side."""
    import torch

    return blurred(pixels, torch.tensor([BLUR * min(pixels.shape[-2:])], dtype=torch.float32))


def noise(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Normal noise of 5 % of the range, for each value."""
    import torch

    drawn = rng.normal(0.0, NOISE, tuple(pixels.shape)).astype(np.float32)
    return (pixels + torch.from_numpy(drawn)).clamp(0, 1)


def crop(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Moved by up to a tenth of a side each way."""
    return shifted(pixels, [rng], SHIFT)


PICTURES: Mapping[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "crop": crop,
}
