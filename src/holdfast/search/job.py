"""One fit of a search: what is asked of it, and what it leaves. ``work`` is what every engine
does."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.core.actions import Stop
from holdfast.core.records import Floats, Ints, Snapshot, to_json
from holdfast.data.table import Table, TrainSplit
from holdfast.pipeline.ready import AskedSide, Fitted
from holdfast.pipeline.rows import Notify

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.search.bench import Bench


@dataclass(frozen=True, slots=True, eq=False)
class FitJob:
    """One fit that a search wants.

    ``key`` is its name in the search, letters, digits and hyphens. ``train``, ``valid`` and
    ``held`` are positions among the bench's rows, each row in at most one of them: ``held`` rows
    (none: an empty array) only score. ``settings`` are ``key: value`` as in a recipe. ``keep`` is
    the folder into which the fitted model is saved.
    """

    key: str
    train: Ints
    valid: Ints
    held: Ints
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep: Path | None = None

    @property
    def mark(self) -> str:
        """What it is, in a text that is equal for equal jobs alone."""
        rows = [side.tolist() for side in (self.train, self.valid, self.held)]
        told = [self.key, rows, dict(self.settings), str(self.keep)]
        return json.dumps(told, sort_keys=True, default=str)


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What a fit saw of its L looks at its validation rows: ``steps`` [L], ``losses`` [L, n] per
    example in nats, ``correct`` [L, n] or ``None``, and the ``metrics`` of each look by name."""

    steps: Ints
    losses: Floats
    correct: Floats | None
    metrics: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
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
    that state. ``planned`` are the updates that were planned, ``seconds`` of wall time.
    ``stopped`` is the reason with which a watch ended it, ``None`` where none did.
    ``recipe`` holds every setting as it was resolved.
    """

    key: str
    settings: Mapping[str, Any]
    looks: Looks
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
    held: Held | None = None
    folder: Path | None = None


class Watch(Protocol):
    """Follows the fits of a search and may end one."""

    def look(self, key: str, look: Snapshot) -> str | None:
        """A reason to end the job ``key`` now; ``None`` lets it go on."""
        ...


class Watched:
    """A listener that shows each look of a job to the search's watch."""

    name = "search"
    place = "tell"

    def __init__(self, key: str, watch: Watch) -> None:
        self._key, self._watch = key, watch
        self.because: str | None = None

    def snapshot_taken(self, run: Any) -> None:
        if self.because is not None or run.stop_because is not None:
            return
        self.because = self._watch.look(self._key, run.looked)
        if self.because is not None:
            run.guard.act(Stop(self.because))


def work(
    bench: Bench, job: FitJob, watch: Watch | None = None, notify: Notify = lambda _: None
) -> Done:
    """Fit, and say what came of it."""
    watched = Watched(job.key, watch) if watch else None
    fitted = bench.fit(job, (watched,) if watched else (), notify)
    held = None
    if len(job.held) or job.keep:
        held = _saved(fitted, bench, job)
    return _done(job, fitted, watched.because if watched else None, held)


def _saved(fitted: Fitted, bench: Bench, job: FitJob) -> Held | None:
    """Save the model, for good or for the facts that answering needs; what it says of held rows."""
    from holdfast.pipeline.scoring import save_model, save_side

    folder = Path(tempfile.mkdtemp()) if job.keep is None else job.keep
    folder.mkdir(parents=True, exist_ok=True)
    try:
        saved = save_model(folder, fitted)
        save_side(folder, fitted)
    finally:
        if job.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return answers_of(fitted, saved, bench.rows.take(job.held)) if len(job.held) else None


def answers_of(fitted: Fitted, saved: Mapping[str, Any], table: Table) -> Held:
    """What a fit's kept state says of other labelled rows, which it neither learned from nor was
    judged by; ``saved`` is what saving its model gave."""
    import pyarrow as pa

    from holdfast.pipeline.predictor import Predictor

    examples = fitted.encode(table)
    sides = replace(fitted.ready.sides, train=examples, train_rows=TrainSplit(table))
    # A kind answers for the rows of a side; these stand where the training rows do.
    asked = replace(fitted, ready=replace(fitted.ready, sides=sides))
    of_all = AskedSide(asked, saved, "train", np.arange(len(table)))
    answers = pa.table(dict(fitted.ready.kind.tell(of_all)))
    losses = fitted.measure(examples)[0]
    scores = Predictor.of(fitted).judge(table)()
    return Held(scores.to_json(), answers, losses)


def _done(job: FitJob, fitted: Fitted, stopped: str | None, held: Held | None) -> Done:
    trained, kept = fitted.trained, fitted.kept_look
    history = trained.history
    steps = [look.step for look in history]
    looks = Looks(
        np.array(steps, dtype=np.int64),
        np.array([look.valid_losses for look in history], dtype=np.float64),
        _correct([look.valid_correct for look in history]),
        tuple(dict(look.valid_metrics) for look in history),
    )
    right = _correct([kept.valid_correct])
    return Done(
        key=job.key,
        settings=dict(job.settings),
        looks=looks,
        best=None if trained.average is not None else steps.index(trained.best_step),
        losses=np.asarray(kept.valid_losses, dtype=np.float64),
        correct=None if right is None else right[0],
        metrics=dict(kept.valid_metrics),
        best_step=trained.best_step,
        last_step=trained.last_step,
        planned=fitted.job.plan.steps,
        examples_seen=trained.examples_seen,
        seconds=fitted.seconds,
        parameters=sum(p.numel() for p in fitted.network.parameters()),
        verdict=to_json(trained.verdict),
        ended=trained.stopped_because,
        stopped=stopped,
        recipe=fitted.recipe.shown(),
        held=held,
        folder=job.keep,
    )


def _correct(marks: list[Any]) -> Floats | None:
    if any(one is None for one in marks):
        return None
    return np.array(marks, dtype=np.float64)
