"""How the rows of a split are used: for training and validation, with or without cross-fitting, and
for scoring without test rows.

``train.folds`` says whether validation rows are set aside (0: one fit) or used for training too (K:
cross-fitted, ``fits/cross_fitting.py``). If it is open, the default recipe for these rows decides
(``plan/defaults.py``).

Without test rows (``data.split.test=0``) all rows are training or validation rows. To score the
model, the full procedure is repeated on the rows outside each of K outer folds, with every choice
(steps, checkpoint, temperature, added rows) made on those rows only, and the result predicts the
fold. So each row is predicted once, by a model that neither learned from it nor was selected by it.
``metrics/score.py`` estimates the score of the model trained on all rows from these predictions,
with its interval.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, OuterFoldPredictions, PreparedData, RunStart
from holdfast.contract.run_folder import ALSO_TRAINED_NOTE
from holdfast.core.decisions import decisions_to, notify, record_decisions, stage
from holdfast.core.errors import RecipeError, SplitError
from holdfast.core.machine import process_count
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.seeds import derive_seed
from holdfast.core.tasks import LABELLED_TEXT_TASKS
from holdfast.core.wording import percent_phrase
from holdfast.data.table import Splits, Table, TrainSplit, ValidSplit
from holdfast.fits.cross_fitting import (
    FILE_FORMAT,
    FOLDER,
    FoldRun,
    cross_fit,
    fold_seed,
    gains_over_probe,
    probe_logits,
    resumable,
    run_folds,
)
from holdfast.fits.fit import fit
from holdfast.fits.frozen import AUTO
from holdfast.fits.plan_trial import settings_to_try
from holdfast.fits.seen_rows import check_start_rows
from holdfast.plan.control import ADAPT, PASSIVE_POLICIES, resolve_policy
from holdfast.plan.defaults import against_folds, benchmarked_folds, may_have_folds
from holdfast.plan.task import resolve_task
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare, prepare_divided, with_added, with_log
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe, as_settings, override
from holdfast.split.folds import Fold, holdout_split, make_folds
from holdfast.tasks.classes.classifier import kept_temperature
from holdfast.training.checkpoint import SealedFile

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.fits.fit import FitFolder


FOLDS_KEY = "train.folds"
VALID_GIVEN = "needs validation rows from the source, but they were given separately"


def learning_rows(
    recipe: Recipe, divided: Divided, *, scored: bool = True, folds_first: bool = False
) -> LearningRows:
    """Prepare the rows of a split, and choose how they are used. Without test rows the model is
    ``scored`` on outer folds, unless the caller scores it. With ``folds_first`` the embedded
    model's folds, where it has any, are run before a base model is chosen.

    Raises ``RecipeError`` where folds are requested that these rows do not allow, ``Interrupted``
    where the user stops the folds.
    """
    with record_decisions() as log:
        by_outer_folds = scored and not len(divided.splits.test)
        check_start_rows(recipe.model.name, divided, by_outer_folds)
        learning = _prepare_learning(recipe, divided, by_outer_folds, folds_first)
    return replace(learning, prepared=with_log(learning.prepared, log))


def _prepare_learning(
    recipe: Recipe, divided: Divided, by_outer_folds: bool, folds_first: bool
) -> LearningRows:
    recipe, _ = resolve_task(recipe)
    recipe, worked_out = resolve_policy(recipe, divided.table.columns)
    notify(*worked_out)
    # Folds that are run first have no trial of another plan.
    folds_first = folds_first and not settings_to_try(recipe)
    # Outer folds would repeat each of the folds.
    may_fold = not by_outer_folds and folds_conflict(recipe, divided) is None
    if recipe.train.folds is None and not may_fold:
        # Settled here, so that the time of a base model is estimated without folds.
        recipe = recipe.with_changes(train={"folds": 0})
    embedded: LearningRows | None = None

    def measure(prepared: PreparedData) -> Floats | None:
        nonlocal embedded
        train, valid = np.split(np.arange(len(prepared)), [len(divided.splits.train)])
        with decisions_to(None):
            learning = _arrange(prepared, divided, train, valid)
            embedded = learning.with_finished_folds() if learning.folds else None
        if embedded is None:
            return None
        return gains_over_probe(embedded.finished, _labels_of(embedded)[embedded.train])

    prepared_alone, train, valid = prepare_divided(
        recipe,
        divided.splits,
        divided.findings,
        divided.unlabelled,
        extend=False,
        # With folds the validation rows are learned from too.
        choose_by_all=may_have_folds(recipe, len(divided.splits.train) + len(divided.splits.valid)),
        measure=measure if folds_first and may_fold else None,
    )
    if by_outer_folds:
        refuse_without_test(prepared_alone, divided)
    learning = _arrange(prepared_alone, divided, train, valid, by_outer_folds)
    if embedded is not None and learning.prepared.recipe == embedded.prepared.recipe:
        learning = replace(learning, finished=embedded.finished)
    if not by_outer_folds:
        return learning
    outer = outer_folds(learning)
    because = (
        "data.split.test=0: each fold is predicted by a model trained the same way on the other "
        "rows; these predictions estimate the score of the final model"
    )
    notify(Decision("score", f"{len(outer)} outer folds", because, prominent=True))
    recipes = [_recipe_of_outer_fold(learning.prepared, one) for one in outer]
    return replace(learning, outer=outer, outer_recipes=tuple(recipes))


def _recipe_of_outer_fold(prepared: PreparedData, fold: Fold) -> dict[str, Any]:
    """The recipe of a fold whose training rows choose another base model than the run's; its other
    settings are open, since those of the run will be for its own model. Empty for the run's own.
    Checkpoints hold it, so it has no command of an alert, which may hold a secret."""
    choice, recipe = prepared.base_models, prepared.recipe
    settings = choice.settings(fold.train, recipe) if choice else {}
    if not settings:
        return {}
    return override(recipe, as_settings(settings)).model_dump(mode="json", exclude={"alert"})


def _arrange(
    prepared_alone: PreparedData,
    divided: Divided,
    train: Ints,
    valid: Ints,
    by_outer_folds: bool = False,
) -> LearningRows:
    """How the rows of a split are used by a run from the model that they are prepared for."""
    folds = choose_folds(prepared_alone, divided, valid)
    prepared_alone = replace(
        prepared_alone, recipe=prepared_alone.recipe.with_changes(train={"folds": folds})
    )
    all_tables, requested = divided.tables, chosen_anew(prepared_alone.recipe)
    prepared_alone = with_general(prepared_alone, all_tables)
    if folds:
        train = valid = np.union1d(train, valid)
        prepared = with_added(prepared_alone, train, valid[:0], (), all_tables)
        divided = replace(divided, splits=all_training(divided.splits, prepared.rows))
    else:
        prepared = with_added(prepared_alone, train, valid, divided.unlabelled, all_tables)
    if folds or by_outer_folds:
        # Each fold chooses from its own rows, so the request is kept.
        prepared = replace(prepared, recipe=prepared.recipe.with_changes(data=requested))
    if prepared.recipe.distill.teacher:
        # Importing the code for teachers takes a quarter of a second.
        from holdfast.fits.lessons import with_lessons

        prepared = with_lessons(prepared, divided)
    return LearningRows(prepared, train, valid, folds, divided, requested)


def chosen_anew(recipe: Recipe) -> dict[str, Any]:
    """The settings of ``data`` that are chosen by the training rows of each fit."""
    return recipe.data.model_dump(include={"names", "unlabelled_by"})


def all_training(splits: Splits, rows: Table, note: str = ALSO_TRAINED_NOTE) -> Splits:
    """The split of a run that also learns from its validation ``rows``, with a ``note`` for each
    of these."""
    records = splits.records
    split, notes = records["split"].to_pylist(), records["note"].to_pylist()
    for place, split_name in enumerate(split):
        if split_name == "valid":
            split[place] = "train"
            notes[place] = "; ".join(filter(None, (notes[place], note)))
    import pyarrow as pa

    for name, column in (("split", split), ("note", notes)):
        index = records.column_names.index(name)
        records = records.set_column(index, name, pa.array(column, pa.string()))
    return replace(splits, train=TrainSplit(rows), valid=ValidSplit(rows.take([])), records=records)


def choose_folds(prepared: PreparedData, divided: Divided, valid: Ints) -> int:
    """The number of folds, 0 for none. Raises ``RecipeError`` where requested folds are not
    possible."""
    folds = prepared.recipe.train.folds
    if folds is None:
        return _usual_folds(prepared, len(valid))
    if not folds:
        return 0
    against = folds_conflict(prepared.recipe, divided)
    if against:
        raise RecipeError(FOLDS_KEY, against, folds, f"Leave it out, or set {FOLDS_KEY}=0.")
    because = (
        "set in the recipe: validation rows are also used for training, and every choice is made "
        "on out-of-fold predictions"
    )
    notify(Decision("cross-fitting", f"{folds} folds", because, prominent=True))
    return folds


def _usual_folds(prepared: PreparedData, valid: int) -> int:
    """The folds of the default recipe, for so many validation rows."""
    folds = benchmarked_folds(prepared)
    if not folds:
        return 0
    if settings := against_folds(prepared.recipe):
        because = (
            f"it was not benchmarked with {', '.join(settings)}, so the {valid} validation rows "
            f"are not trained on ({FOLDS_KEY}={folds} turns it on)"
        )
        notify(Decision("cross-fitting", "off", because))
        return 0
    because = (
        f"{valid} validation rows are few, so they are used for training too: stopping, best "
        f"checkpoint and temperature use out-of-fold predictions ({FOLDS_KEY}=0 sets them aside)"
    )
    notify(Decision("cross-fitting", f"{folds} folds", because, prominent=True))
    return folds


def folds_conflict(recipe: Recipe, divided: Divided) -> str | None:
    """Why these rows cannot be cross-fitted, as the rest of a sentence about ``train.folds``."""
    columns = divided.table.columns
    data, task = recipe.data, divided.recipe.task
    if task not in LABELLED_TEXT_TASKS or not columns.one_class:
        kind = f"data.label_kind={columns.label_kind}" if task in LABELLED_TEXT_TASKS else task
        return f"is not supported for {kind}: it needs texts with one class each"
    given = [table.source for table in divided.given]
    if data.valid is not None or (len(given) and data.test is None):
        return VALID_GIVEN
    policy = recipe.control.policy
    blocking = {
        "data.features": data.features not in (None, False),
        "data.unlabelled": data.unlabelled is not None,
        # A teacher knows the labels of the rows that each fold predicts.
        "distill.teacher": bool(recipe.distill.teacher),
        "data.synthesize": data.synthesize is not None,
        "data.split.by": data.split.by != "rows",
        "data.split.stable": data.split.stable,
        "train.max_minutes": recipe.train.max_minutes is not None,
        # Such a policy uses the evaluations of its own run; the folds have others.
        f"control.policy={policy}": policy not in (None, *PASSIVE_POLICIES, ADAPT),
        # The layers would be chosen by labels of the rows that each fold predicts.
        "model.freeze=auto": recipe.model.freeze == AUTO,
        # Its phrases are those of the rows that each fold predicts, too.
        "model.static": recipe.model.static,
    }
    conflicts = [name for name, there in blocking.items() if there]
    if conflicts:
        return f"cannot be used with {' and '.join(conflicts)}"
    return "needs a single process" if process_count() > 1 else None


def dealing_conflict(recipe: Recipe, divided: Divided) -> str | None:
    """Why the training and validation rows of a split must not be assigned to random folds, each
    predicted by a fit on the others, as the rest of a sentence about the setting that needs it."""
    records = divided.splits.records.select(["file", "split"]).to_pylist()
    judging = {line["file"] for line in records if line["split"] == "valid"}
    if judging - {divided.table.source}:
        return VALID_GIVEN
    if (by := recipe.data.split.by) not in ("rows", "group"):
        # Newer rows, or rows of the same source, would leak into training; groups stay together.
        return f"assigns rows to folds at random, but these are split by {by} (data.split.by)"
    if recipe.model.static:
        return "cannot be used with model.static, whose phrases are from the rows of all folds"
    return None


def refuse_without_test(prepared: PreparedData, divided: Divided) -> None:
    """Raise ``RecipeError`` where rows without test rows cannot be scored out of fold."""
    against = folds_conflict(prepared.recipe, divided)
    if against:
        rule = f"leaves no test rows, and an out-of-fold score {against}"
        remedy = (
            "Set a share of test rows, name a file with data.test, or remove the other setting."
            if "cannot be used with" in against
            else "Set a share of test rows, or name a file with data.test."
        )
        raise RecipeError("data.split.test", rule, 0, remedy)


FOLDS = 5


@dataclass(frozen=True, slots=True)
class LearningRows:
    """The rows that a run learns from: ``train`` and ``valid`` positions among the rows of
    ``prepared``, or all of them in this many ``folds`` (0: none). ``divided`` is the split as it is
    then used. ``requested`` are the settings of ``data`` that are chosen anew for other training
    rows, as the recipe gave them. ``outer`` are the folds that are scored where there are no test
    rows, ``outer_recipes`` theirs, empty for the run's own. ``finished`` are the runs of the
    ``folds``, where they are known."""

    prepared: PreparedData
    train: Ints
    valid: Ints
    folds: int
    divided: Divided
    requested: Mapping[str, Any] = field(default_factory=dict)
    outer: tuple[Fold, ...] = ()
    outer_recipes: tuple[Mapping[str, Any], ...] = ()
    finished: tuple[FoldRun, ...] = ()

    @property
    def everything(self) -> Ints:
        """All training and validation rows, ascending."""
        return np.union1d(self.train, self.valid)

    def fit(self, into: FitFolder | None = None, listeners: Sequence[Listener] = ()) -> FittedModel:
        """Train with one fit or cross-fitted, as chosen."""
        if not self.folds:
            return fit(self.prepared, self.train, self.valid, into=into, listeners=listeners)
        return cross_fit(
            self.prepared,
            self.train,
            self.folds,
            extend=self.extended,
            finished=self.finished,
            into=into,
            listeners=listeners,
        )

    def with_finished_folds(self) -> LearningRows:
        """The rows with the results of their folds, which are run now."""
        with stage("cross-fitting MiniLM (embedded)"):
            runs = run_folds(self.prepared, self.train, self.folds, self.extended)
        return replace(self, finished=runs)

    def blocks(self) -> Mapping[str, Any]:
        """A single fit adds no blocks to those of every run."""
        return {}

    @property
    def bare(self) -> PreparedData:
        """The prepared data without anything derived from training rows."""
        return replace(
            self.prepared,
            recipe=self.prepared.recipe.with_changes(data=self.requested),
            added=None,
            added_examples=None,
            preparation_findings=(),
            decisions=(),
            synthetic=None,
            lessons=None,
        )

    def extended(self, train: Ints, valid: Ints) -> PreparedData:
        """The prepared data with the rows that are added to these training rows."""
        return with_added(self.bare, train, valid, (), self.divided.tables)


@dataclass(frozen=True, slots=True, eq=False)
class FoldLogits:
    """One outer fold: the calibrated ``logits`` [held out, classes] and those of the linear
    ``probe``."""

    held: Ints
    logits: Floats
    probe: Floats


def outer_folds(learning: LearningRows) -> tuple[Fold, ...]:
    """The folds, as positions among all rows. Invalid folds raise here, before training.

    Raises ``SplitError`` where a class has too few units for every fold and its inner folds.
    """
    rows, prepared = learning.everything, learning.prepared
    units, labels = prepared.units[rows], _labels_of(learning)[rows]
    seed = derive_seed(prepared.recipe.seed, "outer folds")
    names = prepared.rows.classes
    with _name_division(f"the {FOLDS} outer folds that give the score with data.split.test=0"):
        folds = make_folds(units, labels, FOLDS, seed, class_names=names)
    for fold in folds:
        with _name_division(
            f"the rows of {FOLDS - 1} of the {FOLDS} outer folds (data.split.test=0)"
        ):
            if learning.folds:
                inner = units[fold.train], labels[fold.train]
                make_folds(*inner, learning.folds, fold_seed(prepared), class_names=names)
            else:
                _inner_split(learning, rows[fold.train])
    return tuple(Fold(rows[f.train], rows[f.held_out], f.number) for f in folds)


@contextlib.contextmanager
def _name_division(division: str) -> Iterator[None]:
    """Name the split that failed, where the user did not request one."""
    try:
        yield
    except SplitError as error:
        rule = f"{error.rule}, in {division}"
        remedy = f"{error.remedy} Or remove data.split.test: test rows are then set aside."
        raise error.reworded(rule=rule, remedy=remedy) from error


def predict_outer_folds(
    learning: LearningRows, recipe: Recipe, checkpoints: Path, run_start: RunStart
) -> OuterFoldPredictions:
    """Fit the other rows of each outer fold and predict the fold, with the resolved ``recipe`` of
    the run on all rows (an open recipe would be resolved again, and a resumed run has none), unless
    the fold chose another base model. Folds that a killed run finished are read from
    ``checkpoints``.
    """
    import torch

    rows, prepared, folds = learning.everything, learning.prepared, learning.outer
    classes, labels = len(prepared.rows.classes), _labels_of(learning)
    own_recipes = run_start.outer_recipes or [{}] * len(folds)
    logits, probe, majority = (np.full((len(rows), classes), np.nan) for _ in range(3))
    for fold, own in zip(folds, own_recipes, strict=True):
        path = checkpoints / FOLDER / f"outer-{fold.number}.pt"
        file = SealedFile(path, f"{run_start.mark} outer {fold.number}", FILE_FORMAT)
        state = file.load("a finished outer fold")
        if state is not None:
            fold_logits = FoldLogits(**{name: state[name].numpy() for name in FoldLogits.__slots__})
        else:
            start = time.perf_counter()
            with resumable(f"outer fold {fold.number + 1}"):
                fold_logits = _predict_fold(learning, fold, recipe, own)
            fields = {name: getattr(fold_logits, name) for name in FoldLogits.__slots__}
            file.save({name: torch.as_tensor(field) for name, field in fields.items()})
            seconds = time.perf_counter() - start
            accuracy = float((fold_logits.logits.argmax(axis=1) == labels[fold.held_out]).mean())
            because = (
                f"a model trained on {len(fold.train)} other rows in {seconds:.0f} s predicts "
                f"these {len(fold.held_out)} unseen rows with an accuracy of "
                f"{percent_phrase(accuracy, 1)}"
            )
            what = f"outer fold {fold.number + 1} of {len(folds)}"
            notify(Decision(what, "scored", because, prominent=True))
        positions = np.searchsorted(rows, fold_logits.held)
        logits[positions], probe[positions] = fold_logits.logits, fold_logits.probe
        counts = np.bincount(labels[fold.train], minlength=classes).astype(np.float64)
        majority[positions] = np.log((counts + 1) / (counts.sum() + classes))
    return OuterFoldPredictions(len(folds), logits, probe, majority)


def _predict_fold(
    learning: LearningRows, fold: Fold, recipe: Recipe, own: Mapping[str, Any]
) -> FoldLogits:
    if own:
        recipe = Recipe.model_validate(own)
        learning = replace(learning, prepared=_prepared_by(recipe, learning))
        recipe = learning.prepared.recipe
    fitted = _fit(learning, fold.train, recipe)
    examples = learning.prepared.examples
    # Before the probe, which reuses the network's memory.
    logits = fitted.measure(examples, fold.held_out)[1] / kept_temperature(fitted)
    return FoldLogits(fold.held_out, logits, probe_logits(fitted, examples, fold.held_out))


def _prepared_by(recipe: Recipe, learning: LearningRows) -> PreparedData:
    """The rows prepared for the model of another recipe."""
    before = learning.prepared
    prepared = prepare(recipe, before.rows, units=before.units, findings=before.findings)
    return with_general(prepared, learning.divided.tables)


def _fit(learning: LearningRows, rows: Ints, recipe: Recipe) -> FittedModel:
    """The run's own procedure on some of its rows."""

    def extended(train: Ints, valid: Ints) -> PreparedData:
        return replace(learning.extended(train, valid), recipe=recipe)

    if learning.folds:
        return cross_fit(extended(rows, rows[:0]), rows, learning.folds, extend=extended)
    train, valid = _inner_split(learning, rows)
    return fit(extended(train, valid), train, valid)


def _inner_split(learning: LearningRows, rows: Ints) -> tuple[Ints, Ints]:
    """Split these rows into training and validation rows, with the shares of the run's split."""
    prepared = learning.prepared
    share = len(learning.valid) / len(learning.everything)
    seed = derive_seed(prepared.recipe.seed, "inner division")
    labels, names = _labels_of(learning)[rows], prepared.rows.classes
    train, valid = holdout_split(prepared.units[rows], labels, share, seed, class_names=names)
    return rows[train], rows[valid]


def _labels_of(learning: LearningRows) -> Ints:
    labels: Ints = np.asarray(learning.prepared.rows.column("label"))
    return labels
