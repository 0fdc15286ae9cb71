"""The settings that were recorded: the default recipe, a plain grid, and random ones.

Each setting is what ``holdfast.train`` takes, so that any of them can be trained again. Number 0 is
the default; the random ones are drawn from the same ranges as the default space of a search.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast.core.seeds import generator

COUNT = 64
RATES, EPOCHS = (1e-5, 3e-5, 1e-4, 3e-4), (3, 6, 12)
PASSES = (2, 3, 4, 6, 8, 12, 5)
CHOICES: dict[str, tuple[Any, ...]] = {
    "train.batch_size": (8, 16, 32),
    "train.weight_decay": (0.0, 0.01, 0.1),
    "train.schedule": ("linear", "cosine", "constant"),
    "train.optimizer": ("adamw", "adamw", "rmsprop"),
    "train.layer_decay": (1.0, 1.0, 0.9, 0.75),
    "train.label_smoothing": (0.0, 0.0, 0.1),
    "train.head": ("both", "logistic", "discriminant"),
    "methods.contrast": (False, False, True),
    "model.pooling": ("mean", "mean", "own"),
    "model.dropout": (0.1, 0.0, 0.2),
    "model.freeze": ("words", "words", 0.5, "none"),
}
RANGE = (3e-6, 1e-3)
# What rows and model are prepared with: another value means preparing them anew.
PREPARED = ("model.pooling", "model.dropout")


def settings() -> list[dict[str, Any]]:
    """All of them, the default first, then by turns a random one and one of the grid, so that any
    beginning of the list holds some of both."""
    grid = [
        {"train.learning_rate": rate, "train.epochs": epochs, "methods.contrast": False}
        for rate, epochs in itertools.product(RATES, EPOCHS)
    ]
    order = generator(0, "arena", "grid").permutation(len(grid))
    fixed = iter([grid[i] for i in order])
    drawn = (_drawn(generator(0, "arena", "setting", i)) for i in itertools.count())
    found: list[dict[str, Any]] = [{}]
    while len(found) < COUNT:
        of_grid = next(fixed, None) if len(found) % 3 == 0 else None
        found.append(of_grid or next(drawn))
    return found


def _drawn(rng: np.random.Generator) -> dict[str, Any]:
    low, high = np.log(RANGE)
    chosen: dict[str, Any] = {
        "train.learning_rate": float(f"{np.exp(rng.uniform(low, high)):.3g}"),
        "train.epochs": PASSES[rng.integers(len(PASSES))],
    }
    for name, values in CHOICES.items():
        chosen[name] = values[rng.integers(len(values))]
    return chosen


def of_grid(setting: Mapping[str, Any]) -> bool:
    """Whether it is one of rate × epochs."""
    return set(setting) == {"train.learning_rate", "train.epochs", "methods.contrast"}
