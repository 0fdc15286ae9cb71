"""``holdfast cv``: cross-validation. Each row is predicted once per repeat by a model that did not
learn from it, and a model trained on all rows is saved.

    folds ── each the same fit: training rows train, validation rows choose the number of steps and
      │      the best checkpoint, held-out rows only score
      ├─ scores of the held-out rows → metrics with intervals (``scores.py``)
      ├─ evaluations on validation rows, joined → those of the fit on all rows
      └─ the share of training at which they were best → where that fit stops

All rows are folded. Duplicates and rows of one group stay in one fold. Folds are stratified by
class, by each of several labels and by ranges of numbers. By time, each fold is predicted from
older rows; by group, source or topic, complete blocks are held out. A fold's validation rows, which
choose steps and checkpoint, come from the next fold, so that no row validates two folds of a
repeat.

The model trained on all rows has no validation rows of its own. With ``cv.nested``, inner folds of
each fold replace validation rows, and the model trained on all rows is cross-fitted in the same way
(``fits/cross_fitting.py``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import (
    FittedModel,
    OutOfFoldPredictions,
    PreparedData,
    TrainingPlan,
    class_count,
)
from holdfast.contract.result import write_parquet
from holdfast.core.decisions import decisions_to, notify
from holdfast.core.errors import RecipeError, SplitError
from holdfast.core.records import Decision, Ints
from holdfast.core.run_files import FOLDS_FILE as FOLDS_FILE
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import percent_phrase
from holdfast.data.labels.bins import join_small_strata, label_matrix
from holdfast.fits.compose import make_training_plan, with_label_weights
from holdfast.fits.cross_fitting import refuse_averages
from holdfast.fits.fit import run_fit
from holdfast.fits.row_use import LearningRows, all_training, chosen_anew, folds_conflict
from holdfast.fits.seen_rows import check_start_rows
from holdfast.models.layers import count_parameters
from holdfast.plan.control import resolve_policy, without_trials
from holdfast.plan.defaults import resolve_settings
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare_divided, with_added
from holdfast.prepare.rows import Divided
from holdfast.prepare.split_options import split_strategy
from holdfast.recipe import Recipe, as_settings, override
from holdfast.runs.start import RunFolder
from holdfast.search.context import SearchContext, TrialFold
from holdfast.search.folds.learning_curve import PHRASES, curve_block, parts_of_folds
from holdfast.search.folds.scores import cv_block, fold_decision, folds_table
from holdfast.search.job import FitResult, FitStore
from holdfast.search.learner import LocalEngine, make_engine
from holdfast.split.folds import Fold, Folds, holdout_split, make_folds, time_folds
from holdfast.split.strategies import SplitStrategy, majority_blocks
from holdfast.training.observe import FoldMeasurements
from holdfast.training.task import Measurements

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.search.learner import FitEngine


Ages = npt.NDArray[np.float64]
MORE_ROWS = "Choose fewer folds, add rows, or drop small classes (data.rare_classes=drop)."


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """Every fold of every repeat, and how they were made, in words."""

    folds: tuple[TrialFold, ...]
    how: str

    def for_repeat(self, repeat: int) -> tuple[TrialFold, ...]:
        return tuple(one for one in self.folds if one.repeat == repeat)


def fold_rows(recipe: Recipe, prepared: PreparedData, divided: Divided, share: float) -> FoldPlan:
    """The folds of all ``prepared`` rows; ``share`` is the share of validation rows among the rows
    outside a fold (0: none).

    Raises ``SplitError`` if rows, classes, blocks or times are too few for the number of folds.
    """
    seed = derive_seed(recipe.seed, "cross-validation")
    # Reported when the rows were split.
    with decisions_to(None):
        strategy = split_strategy(recipe, divided.table)
    folds = _make_folds(recipe, prepared, divided, strategy, seed)
    trial_folds = []
    for fold in folds:
        valid = fold.train[:0]
        if share and strategy.by == "time":
            valid = _newest_units(prepared, _ages(prepared, divided, strategy), fold, share)
        elif share:
            valid = _from_next_fold(prepared, folds, fold, share, seed)
        train = np.setdiff1d(fold.train, valid)
        _check_fold(prepared, fold, train)
        trial_folds.append(TrialFold(train, valid, fold.held_out, fold.number, fold.repeat))
    return FoldPlan(tuple(trial_folds), folds.description)


def _make_folds(
    recipe: Recipe, prepared: PreparedData, divided: Divided, strategy: SplitStrategy, seed: int
) -> Folds:
    units, cv, rows = prepared.units, recipe.cv, prepared.rows
    assert cv.folds is not None
    labels = np.asarray(rows.column("label"))
    if not rows.columns.one_class:
        labels = join_small_strata(labels, units, cv.folds)
    if strategy.by == "time":
        if cv.repeats > 1:
            rule = "must be 1 with folds by time, because rows have only one order in time"
            raise RecipeError("--repeats", rule, cv.repeats, "Remove it.")
        return time_folds(units, _ages(prepared, divided, strategy), cv.folds)
    how_text = ""
    if strategy.blocks is not None:
        blocks = strategy.blocks[divided.table.positions_of(np.asarray(rows.column("row")))]
        of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
        units = majority_blocks(of_row, blocks)
        labels = np.zeros(len(rows), dtype=np.int64)
        how_text = f"complete {strategy.by}s held out; "
    has_label_sets = "labels" in rows.rows.column_names and not how_text
    try:
        dealt_folds = make_folds(
            units,
            labels,
            cv.folds,
            seed,
            repeats=cv.repeats,
            class_names=prepared.rows.classes if not how_text else (),
            label_matrix=label_matrix(rows) > 0 if has_label_sets else None,
        )
    except SplitError as error:
        rule = f"{error.rule}, in {cv.folds} folds"
        raise error.reworded(rule=rule, remedy=MORE_ROWS) from error
    return Folds(dealt_folds.folds, how_text + dealt_folds.description)


def _ages(prepared: PreparedData, divided: Divided, strategy: SplitStrategy) -> Ages:
    assert strategy.ages is not None
    return np.asarray(
        strategy.ages[divided.table.positions_of(np.asarray(prepared.rows.column("row")))]
    )


def _from_next_fold(
    prepared: PreparedData, folds: Folds, fold: Fold, share: float, seed: int
) -> Ints:
    """Rows of the next fold of the repeat, in complete units, stratified by class if a class has
    enough units."""
    of_repeat = [one for one in folds if one.repeat == fold.repeat]
    rows = of_repeat[(fold.number + 1) % len(of_repeat)].held_out
    rows = np.intersect1d(rows, fold.train)
    valid_share = share * len(fold.train) / max(1, len(rows))
    if valid_share >= 1 and len(of_repeat) > 2:
        return rows
    valid_share = min(valid_share, 0.5)
    units, labels = prepared.units[rows], np.asarray(prepared.rows.column("label"))[rows]
    fold_seed = derive_seed(seed, f"validation {fold.repeat} {fold.number}")
    try:
        _, validation = holdout_split(
            units, labels, valid_share, fold_seed, class_names=prepared.rows.classes
        )
    except SplitError:
        # A class with one unit there: rows judge without it, as long as they learn it.
        _, validation = holdout_split(units, np.zeros_like(labels), valid_share, fold_seed)
    return rows[validation]


def _newest_units(prepared: PreparedData, ages: Ages, fold: Fold, share: float) -> Ints:
    """The newest units of the training rows, about this share of them."""
    rows = fold.train
    units = np.unique(prepared.units[rows], return_inverse=True)[1]
    newest = np.full(int(units.max()) + 1, -np.inf)
    np.maximum.at(newest, units, ages[rows])
    order = np.argsort(-newest, kind="stable")
    cumulative = np.cumsum(np.bincount(units)[order])
    count = int(np.searchsorted(cumulative, share * len(rows))) + 1
    # At least one unit of two learns.
    count = max(1, min(count, len(order) - 1))
    return rows[np.isin(units, order[:count])]


def _check_fold(prepared: PreparedData, fold: Fold, train: Ints) -> None:
    """Refuse a fold without training rows, or without training rows of a class that it predicts."""
    labels = np.asarray(prepared.rows.column("label"))
    one_class = prepared.rows.columns.one_class
    missing = np.setdiff1d(labels[fold.held_out], labels[train]) if one_class else labels[:0]
    if len(missing):
        class_name = f"the class {prepared.rows.classes[int(missing[0])]!r}"
        rule = f"is in fold {fold.number + 1} but has no training row outside it"
        raise SplitError(class_name, rule, None, MORE_ROWS)
    if not len(train):
        raise SplitError("a fold", "leaves no training rows", None, MORE_ROWS)


FOLDS = 5
FOLDED = "a validation row of the split: folded like all others"


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """The procedure: ``folds`` folds, ``repeats`` times, run by an ``engine``."""

    folds: int = FOLDS
    repeats: int = 1
    nested: bool = False
    learning_curve: bool = False
    engine: FitEngine = field(default_factory=LocalEngine)

    @property
    def name(self) -> str:
        return "cv"

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        """All rows are folded: no test rows are set aside, unless a test file is given.

        Raises ``RecipeError`` for settings that are incompatible with folds.
        """
        _refuse_conflicts(recipe)
        if self.nested and self.learning_curve:
            rule = "cannot be combined with --nested"
            raise RecipeError("--learning-curve", rule, None, "Leave one of them out.")
        shares = {"test": 0.0} if recipe.data.test is None else {}
        split = {**recipe.data.split.model_dump(), **shares}
        cv_settings = {**self.describe(), "learning_curve": self.learning_curve}
        return recipe.with_changes(data={"split": split}, cv=cv_settings)

    def describe(self) -> Mapping[str, Any]:
        return {"folds": self.folds, "repeats": self.repeats, "nested": self.nested}

    def learn(self, recipe: Recipe, divided: Divided) -> FoldLearner:
        """Prepare all rows, and fold them."""
        given_parts = int("test" in divided.splits.records["split"].to_pylist())
        if recipe.data.valid is not None or len(divided.given) > given_parts:
            rule = "splits the rows itself, but validation rows are given"
            remedy = "Give all rows as one file, or remove data.valid."
            raise RecipeError("holdfast cv", rule, recipe.data.valid, remedy)
        check_start_rows(recipe.model.name, divided, scores_all=True)
        if not recipe.cv.nested:
            # Each fold sets validation rows aside, so a base model's time is estimated without.
            recipe = recipe.with_changes(train={"folds": 0})
            because = "the model trained on all rows has no validation rows to decide on a change"
            recipe, policy_decisions = without_trials(recipe, because)
        else:
            recipe, policy_decisions = resolve_policy(recipe, divided.table.columns)
        notify(*policy_decisions)
        divided = replace(divided, decisions=(*divided.decisions, *policy_decisions))
        prepared, train, valid = prepare_divided(
            recipe, divided.splits, divided.findings, extend=False, choose_by_all=True
        )
        if recipe.cv.nested and (against := folds_conflict(prepared.recipe, divided)):
            raise RecipeError(
                "--nested", against, None, "Remove it: cv then selects on validation rows."
            )
        prepared = with_general(prepared, divided.tables)
        positions = np.union1d(train, valid)
        folds = max(2, self.folds - 1) if recipe.cv.nested else 0
        share = 0.0 if folds else len(valid) / len(positions)
        plan = fold_rows(prepared.recipe, prepared, divided, share)
        splits = all_training(divided.splits, prepared.rows, FOLDED)
        divided = replace(divided, splits=splits)
        requested = chosen_anew(prepared.recipe)
        learning = LearningRows(prepared, positions, positions, folds, divided, requested)
        return FoldLearner(self, learning, plan)


def cross_validation_of(
    recipe: Recipe,
    folds: int | None,
    repeats: int | None,
    nested: bool,
    learning_curve: bool = False,
    engine: str = "local",
    address: str | None = None,
) -> CrossValidation:
    """The procedure by the options, else the recipe, else the defaults.

    Raises ``RecipeError`` for an unknown engine, ``MachineError`` if Ray cannot be reached.
    """
    cv = recipe.cv
    folds = cv.folds if folds is None else folds
    return CrossValidation(
        FOLDS if folds is None else folds,
        cv.repeats if repeats is None else repeats,
        nested or cv.nested,
        learning_curve or cv.learning_curve,
        make_engine(engine, address),
    )


def _refuse_conflicts(recipe: Recipe) -> None:
    data = recipe.data
    blocking = {
        "data.features": data.features not in (None, False),
        "data.unlabelled": data.unlabelled is not None,
        "data.synthesize": data.synthesize is not None,
        "data.split.test_groups": data.split.held is not None,
        "data.split.stable": data.split.stable,
        "model.static": recipe.model.static,
        "train.folds": bool(recipe.train.folds),
        "train.max_minutes": recipe.train.max_minutes is not None,
    }
    if conflicts := [name for name, there in blocking.items() if there]:
        rule = f"cannot be combined with {' and '.join(conflicts)}"
        remedy = "Remove it."
        if "train.folds" in conflicts:
            remedy = "Set train.folds=0: --nested selects on inner folds of each fold."
        raise RecipeError("holdfast cv", rule, None, remedy)
    refuse_averages(recipe.methods, "holdfast cv")


class FoldLearner:
    """Cross-validation of a split: its folds, and then the model trained on all rows."""

    def __init__(self, procedure: CrossValidation, learning: LearningRows, plan: FoldPlan) -> None:
        self._asked, self.learning, self.fold_plan = procedure, learning, plan
        self.divided = learning.divided
        self._blocks: dict[str, Any] = {}

    def blocks(self) -> Mapping[str, Any]:
        return self._blocks

    @property
    def fits(self) -> int:
        """How many models are trained: of each fold and of all rows, each with its inner folds, and
        those of a learning curve."""
        return (len(self.fold_plan.folds) + 1) * (1 + self.learning.folds) + len(self._parts())

    def plan(self) -> Mapping[str, Any]:
        """The folds as they would be made."""
        return {
            "rows": len(self.learning.everything),
            "how": self.fold_plan.how,
            "fits": self.fits,
            "folds": [
                {
                    "fold": one.number,
                    "repeat": one.repeat,
                    "train": len(one.train),
                    "valid": len(one.valid),
                    "held": len(one.held_out),
                }
                for one in self.fold_plan.folds
            ],
        }

    def fit(self, into: RunFolder | None = None, listeners: Sequence[Listener] = ()) -> FittedModel:
        """Run the folds, one after another or in parallel, then train the model on all rows."""
        start, plan, context = (
            time.perf_counter(),
            self.fold_plan,
            SearchContext.from_learning_rows(self.learning),
        )
        whole = {f"fold-{fold.repeat}-{fold.number}": fold for fold in plan.folds}
        parts = self._parts()
        rows = {**whole, **parts}
        summary = (
            f"{len(plan.for_repeat(0))} folds of {len(context.rows):,} rows in all; {self.fits} "
            "fits, one of them on all rows"
        )
        decision = Decision("cross-validation", summary, plan.how, prominent=True)
        notify(decision)
        choice, recipe = self.learning.prepared.base_models, self.learning.prepared.recipe
        all_rows = len(self.learning.everything)

        def settings_of(key: str) -> dict[str, object]:
            fold = rows[key]
            chosen = dict(choice.settings(fold.train, recipe)) if choice else {}
            if key in parts:
                return chosen
            return chosen | settings_of_all(context, chosen, len(fold.train), all_rows)

        jobs = (fold.job(key, settings_of(key), key in parts) for key, fold in rows.items())
        store = FitStore(into.checkpoints if into else None, context.fingerprint)
        engine = self._asked.engine
        by_key: dict[str, FitResult] = {}
        left = all_rows + sum(len(fold.train) for fold in rows.values())
        learned, seconds_spent = 0, 0.0
        for result in engine.run(context, jobs, store=store):
            by_key[result.key] = result
            fold = rows[result.key]
            learned, left = learned + len(fold.train), left - len(fold.train)
            # Of stored fits too, which a resumed run does not repeat.
            seconds_spent += result.seconds
            if result.failed is None:
                more = None if engine.is_parallel else seconds_spent * left / learned
                part = PHRASES.get(fold.share, "")
                notify(fold_decision(fold, result, len(plan.for_repeat(0)), part, more))
        pairs = [(fold, by_key[key]) for key, fold in whole.items()]
        seconds = time.perf_counter() - start
        if into is not None:
            write_parquet(into.run / FOLDS_FILE, folds_table(pairs))
        fitted = self._final(pairs, decision, into, listeners)
        block, valid = cv_block(context, pairs, plan.how, fitted, seconds)
        if parts:
            of_parts = [(fold, by_key[key]) for key, fold in parts.items()]
            block["learning_curve"] = curve_block(context, pairs, of_parts, fitted)
        self._blocks = {"cv": block, "valid": valid}
        return replace(fitted, out_of_fold=_out_of_fold_predictions(context, pairs))

    def _parts(self) -> dict[str, TrialFold]:
        """The smaller fits of a learning curve, by their keys."""
        if not self._asked.learning_curve:
            return {}
        prepared = self.learning.prepared
        return parts_of_folds(prepared, self.fold_plan.folds, prepared.recipe.seed)

    def _final(
        self,
        pairs: Sequence[tuple[TrialFold, FitResult]],
        decision: Decision,
        into: RunFolder | None,
        listeners: Sequence[Listener],
    ) -> FittedModel:
        learning = self.learning
        known = learning.divided.tables
        everything = learning.everything
        prepared = with_added(learning.bare, everything, everything[:0], (), known)
        original = prepared.recipe.with_changes(data=learning.requested)
        prepared = replace(
            prepared,
            recipe=original,
            decisions=(*prepared.decisions, replace(decision, prominent=False)),
        )
        if learning.folds:
            return replace(learning, prepared=prepared).fit(into, listeners)
        start = time.perf_counter()
        first_repeat = [(one, done) for one, done in pairs if one.repeat == 0]
        judging_rows = np.concatenate([one.valid for one, _ in first_repeat])
        checkpoints = into.checkpoints if into else None
        training_plan = make_training_plan(
            prepared, everything, judging_rows, (), checkpoints, cross_fitted=True
        )
        share = float(np.median([done.best_step / max(1, done.planned) for _, done in pairs]))

        def fold_looks(
            training_plan: TrainingPlan, accelerator: object, place: object
        ) -> tuple[TrainingPlan, FoldMeasurements]:
            joined = join_evaluations(first_repeat, training_plan, share, len(pairs))
            return with_label_weights(training_plan, everything), joined

        return run_fit(training_plan, start, into=into, listeners=listeners, folds=fold_looks)


def settings_of_all(
    context: SearchContext, chosen: Mapping[str, object], rows: int, all_rows: int
) -> dict[str, object]:
    """The default settings of the model that is trained on ``all_rows``, for a fold with fewer
    training ``rows`` and these ``chosen`` settings, where its own defaults would differ; else none.
    Without them the score would be that of another plan than the saved model's."""
    prepared = context.prepared(chosen)
    loaded, recipe = prepared.loaded, override(prepared.recipe, as_settings(chosen))
    parameters, classes = count_parameters(loaded.network)[0], class_count(prepared)
    of_fold, of_all = (
        _defaults_for(recipe, parameters, n, loaded.defaults, classes) for n in (rows, all_rows)
    )
    return {} if of_fold == of_all else of_all


def _defaults_for(
    recipe: Recipe, parameters: int, rows: int, model: str | None, classes: int
) -> dict[str, object]:
    """The training settings that the recipe leaves open, and the methods, for this many rows."""
    resolved = resolve_settings(recipe, parameters, rows, model, classes)[0]
    methods = {f"methods.{name}": value for name, value in resolved.methods.items()}
    # A stage of contrast has a number of steps; its epochs follow from the rows.
    own = {"keep", "epochs"} if resolved.methods.get("contrast") else {"keep"}
    train = {
        f"train.{key}": getattr(resolved.train, key)
        for key, value in recipe.train.model_dump().items()
        if value is None and key not in own and getattr(resolved.train, key) is not None
    }
    return {**train, **methods}


def join_evaluations(
    pairs: Sequence[tuple[TrialFold, FitResult]],
    training_plan: TrainingPlan,
    share: float,
    folds: int,
) -> FoldMeasurements:
    """The folds' evaluations as evaluations of the fit on all rows, each at the same share of
    training; a fold that had stopped repeats its last one. The fit stops at the evaluation nearest
    to ``share``."""
    plan = training_plan.plan
    evaluations = []
    for step in plan.evaluate_at:
        progress = step / plan.steps
        places = [
            int(np.argmin(np.abs(done.evaluations.steps / max(1, done.planned) - progress)))
            for _, done in pairs
        ]
        evaluations.append(_join_measured([done for _, done in pairs], places, training_plan))
    last_step = min(plan.evaluate_at, key=lambda step: abs(step / plan.steps - share))
    because = (
        f"the {folds} folds were best at {percent_phrase(share)} of training (the median), "
        "and the model "
        "trained on all rows has no validation rows"
    )
    return FoldMeasurements(len(pairs), plan.evaluate_at, tuple(evaluations), last_step, because)


def _join_measured(
    fold_results: Sequence[FitResult], places: Sequence[int], training_plan: TrainingPlan
) -> Measurements:
    evaluations_at = [
        (done.evaluations, place) for done, place in zip(fold_results, places, strict=True)
    ]
    losses = np.concatenate([one.losses[i] for one, i in evaluations_at])
    logits = [one.logits[i] for one, i in evaluations_at if one.logits is not None]
    if len(logits) == len(evaluations_at):
        all_rows = np.arange(len(training_plan.valid))
        return training_plan.task.measure(
            losses, np.concatenate(logits), training_plan.valid, all_rows
        )
    correct = [one.correct[i] for one, i in evaluations_at if one.correct is not None]
    sizes = np.array([one.losses.shape[1] for one, _ in evaluations_at], dtype=np.float64)

    def mean(values: Sequence[float]) -> float:
        return float((np.asarray(values) * sizes).sum() / sizes.sum())

    fold_metrics = [one.metrics[i] for one, i in evaluations_at]
    return Measurements(
        losses,
        {name: mean([one[name] for one in fold_metrics]) for name in fold_metrics[0]},
        mean([one.refined[i] for one, i in evaluations_at]),
        mean([one.temperature[i] for one, i in evaluations_at]),
        np.concatenate(correct) if len(correct) == len(evaluations_at) else None,
    )


def _out_of_fold_predictions(
    context: SearchContext, pairs: Sequence[tuple[TrialFold, FitResult]]
) -> OutOfFoldPredictions:
    """The out-of-fold predictions of the first repeat, in the order of the rows."""
    import pyarrow as pa

    tables = [done.held_out_scores.predictions for one, done in pairs if one.repeat == 0]
    columns = pa.concat_tables(tables)
    places: Ints = context.rows.positions_of(columns["row"].to_numpy())
    order = np.argsort(places, kind="stable")
    return OutOfFoldPredictions(context.rows.take(places[order]), columns.take(pa.array(order)))
