"""What all fits of a search share: the rows, the recipe and the starting model; and how one fit
runs (``run_job``), which every engine uses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import OF_A_FIT, PREPARED_WITH, FittedModel, PreparedData, SplitRows
from holdfast.core.actions import Stop
from holdfast.core.errors import DataError, MachineError, ModelError, RecipeError, TrainingError
from holdfast.core.records import Decision, Finding, Floats, Ints, Snapshot, to_json
from holdfast.data.labels.bins import join_small_strata
from holdfast.data.table import Table, TrainSplit
from holdfast.fits.cross_fitting import cross_fit, has_probe, probe_logits
from holdfast.fits.fit import fit
from holdfast.fits.row_use import LearningRows
from holdfast.models.compute.processor import quick_dropout
from holdfast.monitor.evidence import raw_losses
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare, with_added
from holdfast.prepare.sources import as_files, with_mix
from holdfast.recipe import Recipe, as_settings, override
from holdfast.runs.start import CHANGEABLE, rows_digest
from holdfast.search.job import FitEvaluations, FitJob, FitResult, FitWatch, FoldScores
from holdfast.split.folds import make_folds
from holdfast.stats.temperature import losses_at
from holdfast.training.listeners.progress import UpdateProgress
from holdfast.training.machine.machine import flushed_subnormals, make_accelerator
from holdfast.training.machine.signals import terminate_like_interrupt

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.core.events import Listener, Place
    from holdfast.fits.fit import FitFolder
    from holdfast.training.run import Run


@contextlib.contextmanager
def run_environment(recipe: Recipe, in_memory: Mapping[str, pa.Table]) -> Iterator[Recipe]:
    """The recipe, with ``in_memory`` rows in files, and the process settings of every run, since
    results depend on them to the last bit."""
    with (
        terminate_like_interrupt(),
        flushed_subnormals(),
        quick_dropout(),
        as_files(*with_mix(recipe, in_memory)) as stored,
    ):
        yield stored


# Prepared models kept in memory: a search goes back and forth between few forms of one.
MAX_PREPARED = 2


def is_fit_setting(key: str) -> bool:
    """Whether a fit can change this setting; for any other the rows or the model are prepared
    again."""
    return key.startswith(OF_A_FIT) and key not in PREPARED_WITH


@dataclass(frozen=True, slots=True, eq=False)
class SearchContext:
    """The rows and the recipe of a search, from which any number of fits begin.

    ``train`` and ``valid`` are the run's split, as positions among ``rows``; with ``folds``
    (``train.folds``) each fit is cross-fitted over all of them. ``known`` are all tables of the
    run; added rows may not duplicate their rows. A context can be sent to another process, which
    prepares rows and model again.
    """

    recipe: Recipe
    rows: Table
    units: Ints
    findings: tuple[Finding, ...]
    train: Ints
    valid: Ints
    folds: int
    known: tuple[Table, ...]
    unlabelled: tuple[str, ...]
    _prepared: dict[str, PreparedData] = field(default_factory=dict, repr=False)

    @classmethod
    def from_learning_rows(cls, learning: LearningRows) -> SearchContext:
        """The context of a run whose rows are prepared."""
        bare = learning.bare
        return cls(
            bare.recipe,
            bare.rows,
            bare.units,
            bare.findings,
            learning.train,
            learning.valid,
            learning.folds,
            learning.divided.tables,
            learning.divided.unlabelled,
            {_key({}): bare},
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the rows, the recipe and the weights of its base model: a fit of another
        context is never reused here."""
        base_model = self.prepared({}).loaded.facts["sha256"]
        text = f"{rows_digest((self.rows, *self.known))} {base_model} {self.recipe.to_yaml()}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def study_fingerprint(self) -> str:
        """A hash of the rows and the recipe of a study, independent of file paths and of the
        machine."""
        recipe = self.recipe.model_dump(mode="json")
        for section, names in CHANGEABLE.items():
            for name in names if names is not None else list(recipe[section]):
                recipe[section].pop(name, None)
        for name in ("threads", "matmul"):
            recipe["train"].pop(name)
        settings_text = json.dumps(recipe, sort_keys=True)
        rows = rows_digest((self.rows, *self.known))
        positions = f"{self.train.tolist()} {self.valid.tolist()}"
        return hashlib.sha256(f"{rows} {positions} {settings_text}".encode()).hexdigest()[:32]

    def prepared(self, settings: Mapping[str, object]) -> PreparedData:
        """The rows and the model for these ``settings``, with nothing computed from training rows.
        Settings that a fit changes itself have no effect here.

        Raises what ``prepare`` raises.
        """
        model_settings = {key: value for key, value in settings.items() if not is_fit_setting(key)}
        key = _key(model_settings)
        if key not in self._prepared:
            while len(self._prepared) >= MAX_PREPARED:
                self._prepared.pop(next(iter(self._prepared)))
            recipe = override(self.recipe, as_settings(model_settings))
            prepared = prepare(
                recipe,
                self.rows,
                units=self.units,
                findings=self.findings,
                train=self.train,
                texts=self.unlabelled,
            )
            self._prepared[key] = with_general(prepared, self.known)
        return self._prepared[key]

    def extended(self, settings: Mapping[str, object], train: Ints, valid: Ints) -> PreparedData:
        """The same with the added rows, computed only from these training rows."""
        return with_added(self.prepared(settings), train, valid, self.unlabelled, self.known)

    def fit(
        self,
        job: FitJob,
        listeners: Sequence[Listener] = (),
        *,
        into: FitFolder | None = None,
        decisions: Sequence[Decision] = (),
    ) -> FittedModel:
        """One fit of the search: not written anywhere, or the last one, written ``into`` the run's
        folder with the earlier ``decisions`` among its own."""

        def extend(train: Ints, valid: Ints) -> PreparedData:
            return self.extended(job.settings, train, valid)

        fit_settings = {key: value for key, value in job.settings.items() if is_fit_setting(key)}
        prepared = extend(job.train, job.train[:0] if self.folds else job.valid)
        # They were printed as they were made.
        not_prominent = (replace(one, prominent=False) for one in decisions)
        prepared = replace(prepared, decisions=(*prepared.decisions, *not_prominent))
        if not self.folds:
            return fit(prepared, job.train, job.valid, fit_settings, into=into, listeners=listeners)
        return cross_fit(
            prepared,
            job.train,
            self.folds,
            fit_settings,
            extend=extend,
            into=into,
            listeners=listeners,
        )

    def __getstate__(self) -> tuple[Any, ...]:
        # Weights and encoded rows are made again where the context arrives.
        bare = replace(self, _prepared={})
        return tuple(getattr(bare, name) for name in type(self).__slots__)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        for name, value in zip(type(self).__slots__, state, strict=True):
            object.__setattr__(self, name, value)


def _key(settings: Mapping[str, object]) -> str:
    return json.dumps(dict(settings), sort_keys=True, default=str)


@dataclass(frozen=True, slots=True, eq=False)
class TrialFold:
    """One fit that scores settings or predicts rows: it learns from ``train``, is scored on
    ``valid`` (empty if inner folds score it) and predicts ``held_out``, positions among the
    context's rows. It is fold ``number`` of its ``repeat``, with a ``share`` of its rows."""

    train: Ints
    valid: Ints
    held_out: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    number: int = 0
    repeat: int = 0
    share: float = 1.0

    def job(self, key: str, settings: Mapping[str, Any], may_fail: bool = True) -> FitJob:
        """The fit of these settings."""
        return FitJob(key, self.train, self.valid, self.held_out, settings, may_fail)


def make_trial_folds(context: SearchContext, folds: int, seed: int) -> tuple[TrialFold, ...]:
    """The fits that score settings: ``folds`` fits, each predicting other rows, or one, scored on
    the validation rows (0)."""
    if not folds:
        return (TrialFold(context.train, context.valid),)
    positions = np.union1d(context.train, context.valid)
    rows, units = context.rows.take(positions), context.units[positions]
    has_labels = "label" in rows.rows.column_names
    labels = np.asarray(rows.column("label")) if has_labels else np.zeros(len(rows), dtype=np.int64)
    folds_dealt = make_folds(units, join_small_strata(labels, units, folds), folds, seed)
    return tuple(TrialFold(positions[fold.train], positions[fold.held_out]) for fold in folds_dealt)


def units_of(context: SearchContext, folds: Sequence[TrialFold]) -> Ints | None:
    """The unit (a group, duplicates) of each scored row, fold by fold (with cross-fitting, each
    training row, out of fold); ``None`` if each row is its own unit."""
    judging = [fold.train if context.folds else fold.valid for fold in folds]
    units: Ints = context.units[np.concatenate(judging)]
    return units if len(np.unique(units)) < len(units) else None


def judging_counts(folds: Sequence[TrialFold]) -> dict[str, int]:
    """How many rows score settings, in how many fits."""
    return {"rows": sum(len(one.valid) for one in folds), "folds": len(folds)}


def timing_batches(prepared: PreparedData, count: int) -> tuple[Any, list[dict[str, Any]]]:
    """The task of prepared rows, and ``count`` rows of medium length (all, if there are fewer) as
    batches of one, for measuring the prediction time."""
    task = prepared.definition.make_task(prepared.loaded, prepared.rows, prepared.recipe, None)
    examples = prepared.definition.transform_examples(
        prepared.examples, prepared.loaded, prepared.rows
    )
    order = np.argsort(np.asarray(examples.lengths), kind="stable")
    first = max(0, len(order) // 2 - count // 2)
    rows = order[first : first + count]
    return task, [task.collate(examples, np.array([row])) for row in rows]


class FitListener:
    """A listener that passes each evaluation of a job to the search's watch."""

    name = "search"
    place: Place = "tell"

    def __init__(self, key: str, watch: FitWatch) -> None:
        self._key, self._watch = key, watch
        self.because: str | None = None

    def snapshot_taken(self, run: Run) -> None:
        if self.because is not None or run.stop_because is not None:
            return
        self.because = self._watch.stop_reason(self._key, run.last_snapshot)
        if self.because is not None:
            run.guard.act(Stop(self.because))


def run_job(context: SearchContext, job: FitJob, watch: FitWatch | None = None) -> FitResult:
    """Run a fit and return its result."""
    listener, start = FitListener(job.key, watch) if watch else None, time.perf_counter()
    progress = UpdateProgress("updates of this fit")
    try:
        fitted = context.fit(job, (progress, listener) if listener else (progress,))
    except (TrainingError, RecipeError, ModelError, MachineError, DataError) as error:
        # A loss that is no number, more memory than there is, settings that exclude each other, too
        # few rows to learn from.
        if not job.may_fail:
            raise
        empty = np.zeros(0)
        return FitResult(
            key=job.key,
            settings=dict(job.settings),
            evaluations=FitEvaluations(
                empty.astype(np.int64), empty[None], None, (), None, empty, empty
            ),
            losses=empty,
            seconds=time.perf_counter() - start,
            ended="failed",
            failed=f"{error.what}: {error.rule}",
        )
    result = _fit_result(job, fitted, listener.because if listener else None)
    if not len(job.held_out):
        return result
    return replace(result, held_out=_held_out_scores(fitted, context.rows.take(job.held_out)))


def _held_out_scores(fitted: FittedModel, table: Table) -> FoldScores:
    """Score a fit's best checkpoint on other labelled rows, which it was neither trained nor
    selected on."""
    import pyarrow as pa

    from holdfast.runs.predictor import Predictor
    from holdfast.runs.scoring import save_model

    # In float32, like the saved model: with bfloat16, a probability near 0.5 may change sides.
    fitted = replace(fitted, job=replace(fitted.job, accelerator=make_accelerator("float32")))
    # The model is saved for the facts that answering needs.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        saved = save_model(Path(folder), fitted)
    examples = fitted.encode(table)
    splits = replace(fitted.training_plan.splits, train=examples, train_rows=TrainSplit(table))
    # A task predicts the rows of a split; these take the place of the training rows.
    rescored = replace(fitted, training_plan=replace(fitted.training_plan, splits=splits))
    all_rows = SplitRows(rescored, saved, "train", np.arange(len(table)))
    predictions = pa.table(dict(fitted.training_plan.definition.prediction_columns(all_rows)))
    losses = fitted.measure(examples)[0]
    scores = Predictor.of(fitted).judge(table)()
    # Last: the probe reuses the network's memory.
    probe = None
    if table.columns.one_class and has_probe(fitted):
        probe = probe_logits(fitted, examples, np.arange(len(table)))
    return FoldScores(scores.to_json(), predictions, losses, probe)


def _fit_result(job: FitJob, fitted: FittedModel, stop_reason: str | None) -> FitResult:
    trained, best = fitted.trained, fitted.best_evaluation
    history = trained.history
    steps = [snapshot.step for snapshot in history]
    evaluations = FitEvaluations(
        np.array(steps, dtype=np.int64),
        np.array(raw_losses(history).T, dtype=np.float64),
        _stacked([snapshot.valid_correct for snapshot in history]),
        tuple(dict(snapshot.valid_metrics) for snapshot in history),
        _stacked([snapshot.valid_logits for snapshot in history]),
        np.array([snapshot.refined_loss for snapshot in history], dtype=np.float64),
        np.array([snapshot.temperature for snapshot in history], dtype=np.float64),
    )
    losses = np.asarray(raw_losses([best])[:, 0], dtype=np.float64)
    correct = _stacked([best.valid_correct])
    return FitResult(
        key=job.key,
        settings=dict(job.settings),
        evaluations=evaluations,
        best=None if trained.selected_average is not None else steps.index(trained.best_step),
        losses=losses,
        correct=None if correct is None else correct[0],
        refined=_calibrated_losses(fitted, best, losses),
        metrics=dict(best.valid_metrics),
        best_step=trained.best_step,
        last_step=trained.last_step,
        planned=fitted.job.plan.steps,
        examples_seen=trained.examples_seen,
        seconds=fitted.seconds,
        parameters=sum(p.numel() for p in fitted.network.parameters()),
        verdict=to_json(trained.verdict),
        ended=trained.stopped_because,
        stopped=stop_reason,
        recipe=fitted.recipe.public_settings(),
    )


def _calibrated_losses(fitted: FittedModel, best: Snapshot, losses: Floats) -> Floats:
    """The losses of the validation rows after the temperature of the best checkpoint."""
    logits, labels = best.valid_logits, getattr(fitted.training_plan.valid, "labels", None)
    if logits is None or labels is None or best.valid_correct is None:
        return losses
    return losses_at(logits, np.asarray(labels), best.temperature)


def _stacked(arrays: list[object]) -> Floats | None:
    if any(one is None for one in arrays):
        return None
    return np.array(arrays, dtype=np.float64)
