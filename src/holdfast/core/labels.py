"""The labels of verdicts. The command line offers them, and imports no NumPy for it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Literal, get_args

Label = Literal[
    "learning",
    "healthy",
    "underfit",
    "overfit",
    "memorizing",
    "miscalibrated",
    "diverging",
    "leaking",
    "noisy_labels",
    "forgetting",
    "inconclusive",
]
VERDICTS: tuple[Label, ...] = get_args(Label)
TITLES: Mapping[str, str] = {
    "learning": "Still learning",
    "healthy": "Healthy",
    "underfit": "Underfitting",
    "overfit": "Overfitting",
    "memorizing": "Memorizing",
    "miscalibrated": "Miscalibrated",
    "diverging": "Diverging",
    "leaking": "Data leakage",
    "noisy_labels": "Noisy labels",
    "forgetting": "Forgetting",
    "inconclusive": "Inconclusive",
}


def verdict_title(label: str) -> str:
    """A verdict as a sentence about a run begins with it; a label of a newer version as it is."""
    return TITLES.get(label, label.replace("_", " "))


# A yes-or-no question about overfitting (``--fail-on overfit``, alerts, stopping) means both.
OVERFITTED: frozenset[Label] = frozenset({"overfit", "memorizing"})


def is_requested(label: Label, requested: Container[str]) -> bool:
    """Whether a verdict is among those that the user asked to be alerted of: ``overfit`` includes
    ``memorizing``."""
    return label in requested or (label in OVERFITTED and "overfit" in requested)
