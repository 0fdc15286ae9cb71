"""Records of generated texts: the bounded, fixed samples of validation rows and training sample
that are generated at every evaluation, and the verbatim completion of training rows (2202.07646).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.core.records import Estimate
from holdfast.core.wording import count_phrase
from holdfast.metrics import TextMetric
from holdfast.stats.intervals import clopper_pearson

# Words of an answer in the prompt, the fewest that must follow, and the most that are compared.
GIVEN, FEWEST, COMPARED = 8, 8, 24


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampled rows of one split for generation.

    Their prompts, references and the ``tables`` that code runs on; ``write`` returns the network's
    texts for them on a device.
    """

    sources: Sequence[str]
    references: Sequence[str]
    tables: Sequence[str | None] | None
    write: Callable[[Any, Any], list[str]]


@dataclass(frozen=True, slots=True)
class WrittenSamples:
    """What is generated at every evaluation: the samples by split, the training targets that a text
    may copy, and the metric of the texts, if any.
    """

    samples: dict[str, Sample]
    answers: Sequence[str]
    metric: TextMetric | None
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Of ``n`` answers, those that were ``completed`` verbatim, by their source rows; ``start`` how
    many of them the base model completed, where it was run.
    """

    n: int
    completed: tuple[int, ...]
    start: int | None = None

    def with_base_model(self, start: Verbatim) -> Verbatim:
        """The same with what the base model completes of these rows."""
        return replace(self, start=len(start.completed))

    @property
    def because(self) -> str:
        if not self.n:
            return f"No answer has the {GIVEN + FEWEST} words that a completion test needs."
        sentence = (
            f"{len(self.completed):,} of {count_phrase(self.n, 'answer')} completed "
            "verbatim from their "
            f"first {GIVEN} words"
        )
        if self.start is None:
            return f"{sentence}."
        return f"{sentence}; {self.start:,} by the base model."

    def to_json(self) -> dict[str, Any]:
        if not self.n:
            share = Estimate(None, why="no answer is long enough")
        else:
            share = Estimate(
                len(self.completed) / self.n, *clopper_pearson(len(self.completed), self.n)
            )
        return {
            "n": self.n,
            "completed": len(self.completed),
            "rate": share.to_json(),
            "rows": list(self.completed),
            "start": self.start,
            "because": self.because,
        }
