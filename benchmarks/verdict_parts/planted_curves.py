"""False alarms and finds on curves drawn by formula: one question a family, forty curves each.

Both losses fall exponentially to a level; validation may then rise over the rest of the run, to end
at least 10 % above its lowest. On top of that comes what looks like a rise and is none: a rate with
restarts (a wave of 5 to 30 points in every cycle), or a resume that changes the scale of both
losses once (by 0.5 to 3). Noise is independent, relative, the same for both losses.
"""

from __future__ import annotations

import numpy as np

from holdfast.core.curves import Curves, Series
from holdfast.monitor.curves.verdict import judge_curves

FAMILIES = ("plain", "restarts", "resumes")
NOISES = (0.003, 0.01, 0.03)
COUNT, FIRST = 40, 2000
OVERFIT = ("overfit", "memorizing")


def curve(family: str, rises: bool, noise: float, seed: int) -> Curves:
    """One log of 12 to 59 epochs."""
    rng = np.random.default_rng([seed, FAMILIES.index(family), int(rises)])
    count = int(rng.integers(12, 60))
    at = np.arange(count)
    fall = np.exp(-at / rng.uniform(3, count / 3))
    valid, train = rng.uniform(0.3, 0.6) + 0.7 * fall, 0.2 + 0.8 * fall
    if rises:
        turn = int(count * rng.uniform(0.2, 0.5))
        share = np.maximum(0, at - turn) / (count - 1 - turn)
        slope = rng.uniform(0.1, 1.0) * valid.min()
        # Where the fall goes on below, a steeper rise is needed for the same end.
        while (valid + slope * share)[-1] < 1.1 * (valid + slope * share).min():
            slope *= 1.2
        valid = valid + slope * share
    if family == "restarts":
        length = int(rng.integers(4, max(5, count // 3)))
        wave = rng.uniform(0.05, 0.3) * 0.5 * (1 + np.cos(np.pi * (at % length) / length))
        valid, train = valid + wave * (at >= length), train + wave * (at >= length)
    if family == "resumes":
        scale = np.where(at < int(count * rng.uniform(0.3, 0.85)), 1, rng.choice([0.5, 1.3, 2, 3]))
        valid, train = valid * scale, train * scale
    told = [side * (1 + noise * rng.normal(size=count)) for side in (train, valid)]
    epochs = at + 1.0
    return Curves(
        "csv", "epoch", Series("loss", epochs, told[0]), Series("val_loss", epochs, told[1])
    )


def called(family: str, rises: bool, noise: float) -> int:
    """How many of the forty are called overfit."""
    found = [judge_curves(curve(family, rises, noise, FIRST + seed)) for seed in range(COUNT)]
    return sum(verdict.label in OVERFIT for verdict in found)
