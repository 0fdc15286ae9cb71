"""What a trained model says of some rows: one frozen record a kind of answer.

Each has ``predictions``, ``confidence`` and ``probabilities`` (see ``using.Answers``), and what
scoring needs beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Outputs

# What a float32 model can tell of a number.
NUMBER_DIGITS = 7


@dataclass(frozen=True, slots=True)
class ClassAnswers:
    """One class a row. ``probabilities`` [n, classes]; ``outputs`` are the logits that they come
    from, with the losses of the rows whose label is known."""

    names: tuple[str, ...]
    probabilities: Floats
    outputs: Outputs

    @property
    def predictions(self) -> list[str]:
        """The most probable class, the first of several that are."""
        return [self.names[int(k)] for k in self.probabilities.argmax(axis=1)]

    @property
    def confidence(self) -> list[float | None]:
        """Its probability."""
        best = self.probabilities.argmax(axis=1)
        sure: list[float | None] = self.probabilities[np.arange(len(best)), best].tolist()
        return sure


@dataclass(frozen=True, slots=True)
class LabelSetAnswers:
    """Several labels a row, each its own yes or no. ``probabilities`` [n, labels]; ``raw`` the
    logits that are scored."""

    names: tuple[str, ...]
    probabilities: Floats
    raw: Floats

    @property
    def predictions(self) -> list[list[str]]:
        """The labels above one half."""
        return named(self.probabilities > 0.5, self.names)

    @property
    def confidence(self) -> list[float | None]:
        """How sure the least sure yes or no of a row is."""
        least = np.maximum(self.probabilities, 1 - self.probabilities).min(axis=1)
        sure: list[float | None] = least.tolist()
        return sure


@dataclass(frozen=True, slots=True)
class NumberAnswers:
    """A number a row [n, 1], in the user's unit; it has no confidence."""

    raw: Floats

    @property
    def predictions(self) -> list[float]:
        """Each as far as a float32 model can tell it."""
        return [float(shown_number(value)) for value in self.raw[:, 0]]

    @property
    def confidence(self) -> list[float | None]:
        return [None] * len(self.raw)

    @property
    def probabilities(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class WrittenAnswers:
    """A text a row; ``sure`` [n] is the geometric mean of the probabilities of its tokens, NaN for
    an empty text; ``cut`` [n], whether it was stopped at the most tokens before it had ended."""

    predictions: Sequence[str]
    sure: Floats
    cut: npt.NDArray[np.bool_]

    @property
    def confidence(self) -> list[float | None]:
        return [float(p) if p == p else None for p in self.sure]

    @property
    def probabilities(self) -> None:
        return None


def named(held: npt.NDArray[np.bool_], names: Sequence[str]) -> list[list[str]]:
    """The names of the labels of each row."""
    return [[names[int(i)] for i in np.flatnonzero(row)] for row in held]


def shown_number(value: float, digits: int = NUMBER_DIGITS) -> str:
    """A number in that many significant digits."""
    return f"{float(value):.{digits}g}"
