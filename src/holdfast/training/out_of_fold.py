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
from typing import Any

from holdfast.core.records import Floats


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
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

    def at(self, step: int) -> tuple[Floats, Floats]:
        """Losses and kept outputs at the last look that is not after ``step``."""
        place = bisect_right(self.steps, step) - 1
        return self.losses[place], self.kept[place]
