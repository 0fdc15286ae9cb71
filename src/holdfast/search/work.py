"""``work`` carries out one fit of a search: what every engine does."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.fit import FittedModel, SplitRows
from holdfast.core.actions import Stop
from holdfast.core.errors import InputError, MachineError, ModelError, RecipeError, TrainingError
from holdfast.core.records import Floats, Snapshot, to_json
from holdfast.data.table import Table, TrainSplit
from holdfast.monitor.evidence import raw_losses
from holdfast.search.bench import Bench
from holdfast.search.job import Done, FitEvaluations, FitJob, FitWatch, FoldScores
from holdfast.stats.temperature import losses_at

if TYPE_CHECKING:
    from holdfast.core.events import Place
    from holdfast.training.run import Run


class Watched:
    """A listener that shows each look of a job to the search's watch."""

    name = "search"
    place: Place = "tell"

    def __init__(self, key: str, watch: FitWatch) -> None:
        self._key, self._watch = key, watch
        self.because: str | None = None

    def snapshot_taken(self, run: Run) -> None:
        if self.because is not None or run.stop_because is not None:
            return
        self.because = self._watch.look(self._key, run.looked)
        if self.because is not None:
            run.guard.act(Stop(self.because))


def work(bench: Bench, job: FitJob, watch: FitWatch | None = None) -> Done:
    """Fit, and say what came of it."""
    watched, start = Watched(job.key, watch) if watch else None, time.perf_counter()
    try:
        fitted = bench.fit(job, (watched,) if watched else ())
    except (TrainingError, RecipeError, ModelError, MachineError) as error:
        if not job.may_fail:
            raise
        return _failed(job, error, time.perf_counter() - start)
    held = None
    if len(job.held) or job.keep:
        held = _saved(fitted, bench, job)
    return _done(job, fitted, watched.because if watched else None, held)


def _saved(fitted: FittedModel, bench: Bench, job: FitJob) -> FoldScores | None:
    """Save the model, for good or for the facts that answering needs; what it says of held rows."""
    from holdfast.runs.scoring import save_model, save_side

    folder = Path(tempfile.mkdtemp()) if job.keep is None else job.keep
    folder.mkdir(parents=True, exist_ok=True)
    try:
        saved = save_model(folder, fitted)
        save_side(folder, fitted)
    finally:
        if job.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return answers_of(fitted, saved, bench.rows.take(job.held)) if len(job.held) else None


def answers_of(fitted: FittedModel, saved: Mapping[str, object], table: Table) -> FoldScores:
    """What a fit's kept state says of other labelled rows, which it neither learned from nor was
    judged by; ``saved`` is what saving its model gave."""
    import pyarrow as pa

    from holdfast.runs.predictor import Predictor

    examples = fitted.encode(table)
    sides = replace(fitted.ready.sides, train=examples, train_rows=TrainSplit(table))
    # A kind answers for the rows of a side; these stand where the training rows do.
    asked = replace(fitted, ready=replace(fitted.ready, sides=sides))
    of_all = SplitRows(asked, saved, "train", np.arange(len(table)))
    answers = pa.table(dict(fitted.ready.kind.tell(of_all)))
    losses = fitted.measure(examples)[0]
    scores = Predictor.of(fitted).judge(table)()
    return FoldScores(scores.to_json(), answers, losses)


def _done(job: FitJob, fitted: FittedModel, stopped: str | None, held: FoldScores | None) -> Done:
    trained, kept = fitted.trained, fitted.kept_look
    history = trained.history
    steps = [look.step for look in history]
    looks = FitEvaluations(
        np.array(steps, dtype=np.int64),
        np.array(raw_losses(history).T, dtype=np.float64),
        _whole([look.valid_correct for look in history]),
        tuple(dict(look.valid_metrics) for look in history),
        _whole([look.valid_logits for look in history]),
        np.array([look.refined_loss for look in history], dtype=np.float64),
        np.array([look.temperature for look in history], dtype=np.float64),
    )
    right = _whole([kept.valid_correct])
    return Done(
        key=job.key,
        settings=dict(job.settings),
        looks=looks,
        best=None if trained.average is not None else steps.index(trained.best_step),
        losses=np.asarray(raw_losses([kept])[:, 0], dtype=np.float64),
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
        refined=_refined(fitted, kept),
    )


def _refined(fitted: FittedModel, kept: Snapshot) -> Floats:
    """The losses of the validation rows after the temperature that suits the kept state."""
    logits, labels = kept.valid_logits, getattr(fitted.ready.valid, "labels", None)
    if logits is None or labels is None or kept.valid_correct is None:
        return np.asarray(raw_losses([kept])[:, 0], dtype=np.float64)
    return losses_at(logits, np.asarray(labels), kept.temperature)


def _failed(job: FitJob, error: InputError, seconds: float) -> Done:
    """A job whose settings allow no fit: a loss that is no number, more memory than there is, two
    settings that exclude each other."""
    nothing = np.zeros(0)
    return Done(
        key=job.key,
        settings=dict(job.settings),
        looks=FitEvaluations(
            nothing.astype(np.int64), nothing[None], None, (), None, nothing, nothing
        ),
        best=None,
        losses=nothing,
        correct=None,
        metrics={},
        best_step=0,
        last_step=0,
        planned=0,
        examples_seen=0,
        seconds=seconds,
        parameters=0,
        verdict={},
        ended="failed",
        stopped=None,
        recipe={},
        failed=f"{error.what}: {error.rule}",
    )


def _whole(marks: list[object]) -> Floats | None:
    if any(one is None for one in marks):
        return None
    return np.array(marks, dtype=np.float64)
