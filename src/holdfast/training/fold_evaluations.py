"""Looks at rows by networks that had not learned from them, where a run learns from all rows.

A run that spares no row for validation cannot be judged by its own network. Networks that were
trained in the same way on parts of the rows (folds) answer the rest, look by look, and together
they answer each row once: those losses stand where a run's validation losses stand, so that what
diagnoses, chooses and stops needs to know nothing of folds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats

if TYPE_CHECKING:
    from holdfast.training.task import Examples, Measured, Task


@dataclass(frozen=True, slots=True, eq=False)
class FoldEvaluation:
    """The rows [n] as the folds' networks answered them.

    ``steps`` are those of the looks of the run that is judged, rising from 0; ``losses`` (one [n] a
    look, in nats) and ``kept`` (one [n, …] a look) are what ``Observer.measure`` gives. ``probe``
    [n, classes] are the logits of the folds' linear probes; ``curve`` what they say of the rows
    beside that. ``notes`` are the journal's lines about the folds.
    """

    folds: int
    steps: tuple[int, ...]
    losses: tuple[Floats, ...]
    kept: tuple[Floats, ...]
    probe: Floats
    curve: Any = None
    notes: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def measured(self, step: int, task: Task, examples: Examples) -> Measured:
        """All rows as the folds answered them at the last look that is not after ``step``."""
        return task.measure(*self.at(step), examples, np.arange(len(examples)))

    def at(self, step: int) -> tuple[Floats, Floats]:
        """Losses and kept outputs at the last look that is not after ``step``."""
        place = bisect_right(self.steps, step) - 1
        return self.losses[place], self.kept[place]


@dataclass(frozen=True, slots=True, eq=False)
class FoldLooks:
    """Looks of whole fits, each on a part of the rows, in the place of those of one fit on all of
    them: what each measured of the rows that it was judged by, joined.

    ``steps`` are those of the looks of the fit on all rows, rising from 0; ``looks`` one each. The
    fit ends at ``ends_at``, ``because`` says why, and keeps its last state: what it learns from
    judges nothing.
    """

    folds: int
    steps: tuple[int, ...]
    looks: tuple[Measured, ...]
    ends_at: int
    because: str
    curve: Any = None
    probe: None = None
    notes: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def measured(self, step: int, task: Task, examples: Examples) -> Measured:
        """The rows that judge, at the last look that is not after ``step``."""
        return self.looks[bisect_right(self.steps, step) - 1]
