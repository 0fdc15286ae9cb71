"""Where each point of a picture comes from: shifts, turns, scales and shears as one matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Matrices = npt.NDArray[np.float64]


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
