"""One fit of a search: what is asked of it, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.core.records import Floats, Ints, Snapshot

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False)
class FitJob:
    """One fit that a search wants.

    ``key`` is its name in the search, letters, digits and hyphens. ``train``, ``valid`` and
    ``held`` are positions among the bench's rows, each row in at most one of them: ``held`` rows
    (none: an empty array) only score. ``settings`` are ``key: value`` as in a recipe. ``keep`` is
    the folder into which the fitted model is saved. ``may_fail``: where no fit can be done with
    these settings, its ``Done`` says why, and the search goes on.
    """

    key: str
    train: Ints
    valid: Ints
    held: Ints
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep: Path | None = None
    may_fail: bool = False

    @property
    def mark(self) -> str:
        """What it is, in a text that is equal for equal jobs alone."""
        rows = [side.tolist() for side in (self.train, self.valid, self.held)]
        told = [self.key, rows, dict(self.settings), str(self.keep)]
        return json.dumps(told, sort_keys=True, default=str)


@dataclass(frozen=True, slots=True, eq=False)
class FitEvaluations:
    """What a fit saw of its L looks at its validation rows: ``steps`` [L], ``losses`` [L, n] per
    example in nats, ``correct`` [L, n] or ``None``, and the ``metrics`` of each look by name.
    ``logits`` [L, n, classes] of a classifier; ``refined`` [L] are mean losses after the best
    ``temperature`` [L]."""

    steps: Ints
    losses: Floats
    correct: Floats | None
    metrics: tuple[Mapping[str, float], ...]
    logits: Floats | None
    refined: Floats
    temperature: Floats


@dataclass(frozen=True, slots=True, eq=False)
class FoldScores:
    """What the kept state says of held rows: ``scores`` in the shape of a ``test`` block, and
    ``answers`` in the columns of ``predictions.parquet``; ``losses`` [m] per example."""

    scores: Mapping[str, Any]
    answers: pa.Table
    losses: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A job that has come to its end.

    ``best`` is the place of the kept state among the ``looks`` (``None`` where it is an average
    that no look saw), ``losses`` [n], ``correct`` [n] and ``metrics`` are of the validation rows by
    that state; ``refined`` [n] are the losses after the temperature that suits it best, where a row
    has one class, else as they are. ``planned`` are the updates that were planned, ``seconds`` of
    wall time. ``stopped`` is the reason with which a watch ended it, ``None`` where none did.
    ``recipe`` holds every setting as it was resolved. ``failed`` says why there was no fit.
    """

    key: str
    settings: Mapping[str, Any]
    looks: FitEvaluations
    best: int | None
    losses: Floats
    correct: Floats | None
    metrics: Mapping[str, float]
    best_step: int
    last_step: int
    planned: int
    examples_seen: int
    seconds: float
    parameters: int
    verdict: Mapping[str, Any]
    ended: str
    stopped: str | None
    recipe: Mapping[str, Any]
    held: FoldScores | None = None
    folder: Path | None = None
    failed: str | None = None
    refined: Floats | None = None


class FitWatch(Protocol):
    """Follows the fits of a search and may end one."""

    def look(self, key: str, look: Snapshot) -> str | None:
        """A reason to end the job ``key`` now; ``None`` lets it go on."""
        ...
