"""Do pictures mean the same in a mirror? Asked of the rows before any is mirrored.

A linear classifier of coarse pixels is fitted on some folds and asked about the pictures of the
others, as they are and in a mirror. Where left and right matter (digits, letters) it knows the
first far better; where they do not, both alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

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
    side = min(SIDE, *pixels.shape[-2:])
    grids = (
        torch.nn.functional.adaptive_avg_pool2d(one, side) for one in (pixels, pixels.flip(-1))
    )
    plain, mirrored = (grid.flatten(1).numpy().astype(np.float64) for grid in grids)
    right, wrong_way = _out_of_fold(plain, mirrored, labels, seed)
    known, kept = float(right.mean()), float(wrong_way.mean())
    chance = float(np.bincount(labels).max() / len(labels))
    error = np.sqrt(max(chance * (1 - chance), 1e-9) / len(labels))
    told = f"a linear probe of pixels is right on {known:.0%} of pictures, {kept:.0%} in a mirror"
    if known - chance < SURE * error:
        because = f"{told} (the commonest class {chance:.0%}): it knows too little to tell"
        return Mirror(known, kept, chance, False, because)
    gaps = right.astype(float) - wrong_way
    spread = gaps.std(ddof=1) / np.sqrt(len(gaps))
    lost = (known - kept) / (known - chance)
    alike = bool(lost <= ALLOWED or known - kept < SURE * spread)
    return Mirror(known, kept, chance, alike, told)


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
        for found, rows in ((right, plain), (other, mirrored)):
            scores = (rows[outside] - centre) @ weights + y.mean(axis=0)
            found[outside] = scores.argmax(axis=1) == labels[outside]
    return right, other
