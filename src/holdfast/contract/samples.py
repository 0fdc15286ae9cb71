"""Texts at every evaluation point: a bounded, fixed sample of validation rows and of the training
sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.metrics import TextMetric


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one side that are written: what they are written from, what is wanted, the ``tables``
    that code runs on; ``write`` gives the network's texts for them on a device."""

    sources: Sequence[str]
    references: Sequence[str]
    tables: Sequence[str | None] | None
    write: Callable[[Any, Any], list[str]]


@dataclass(frozen=True, slots=True)
class WrittenSamples:
    """What is written at every evaluation point: the samples by side, the training answers that a
    text may copy, and the metric that is read off, if one is."""

    samples: dict[str, Sample]
    answers: Sequence[str]
    metric: TextMetric | None
    new_tokens: int
