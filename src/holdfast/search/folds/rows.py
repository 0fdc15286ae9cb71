"""Which rows each fold of a cross-validation learns from, is judged by, and answers.

All rows are folded. What copies or a group hold together is never parted; classes, each of several
labels and ranges of numbers are held in proportion; by time each fold is answered by what is older,
and by group, source or topic whole blocks are held out. A fold's validation rows, which decide
steps and state, are taken from the next fold, so that no row judges in two folds of a repeat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RecipeError, SplitError
from holdfast.core.records import Ints
from holdfast.core.seeds import derive_seed
from holdfast.prepare.rows import Divided
from holdfast.prepare.split_options import way_of
from holdfast.recipe import Recipe
from holdfast.split.folds import Fold, Folds, forward, make_folds, set_aside
from holdfast.split.ways import SplitStrategy, whole_units
from holdfast.tasks.labels.losses import label_matrix

Ages = npt.NDArray[np.float64]
MORE_ROWS = "Choose fewer folds, add rows, or leave small classes out (data.rare=drop)."


@dataclass(frozen=True, slots=True, eq=False)
class FoldRows:
    """One fold, as positions among all rows: it learns from ``train``, is judged by ``valid`` (none
    where folds within it judge) and answers ``held``."""

    number: int
    repeat: int
    train: Ints
    valid: Ints
    held: Ints

    @property
    def key(self) -> str:
        """Its name among the fits."""
        return f"fold-{self.repeat}-{self.number}"


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """Every fold of every repeat, and in words how they came about."""

    folds: tuple[FoldRows, ...]
    how: str

    def of_repeat(self, repeat: int) -> tuple[FoldRows, ...]:
        return tuple(one for one in self.folds if one.repeat == repeat)


def fold_rows(recipe: Recipe, prepared: PreparedData, divided: Divided, share: float) -> FoldPlan:
    """The folds of all ``prepared`` rows; ``share`` is that of validation rows among those that a
    fold does not hold (0: none).

    Raises ``SplitError`` where rows, classes, blocks or times are too few for so many folds.
    """
    seed = derive_seed(recipe.seed, "cross-validation")
    # Said when the rows were divided.
    with decisions_to(None):
        way = way_of(recipe, divided.table)
    made = _folds(recipe, prepared, divided, way, seed)
    found = []
    for fold in made:
        valid = fold.train[:0]
        if share and way.by == "time":
            valid = _newest(prepared, _ages(prepared, divided, way), fold, share)
        elif share:
            valid = _of_next(prepared, made, fold, share, seed)
        train = np.setdiff1d(fold.train, valid)
        _check(prepared, fold, train)
        found.append(FoldRows(fold.number, fold.repeat, train, valid, fold.held))
    return FoldPlan(tuple(found), made.how)


def _folds(
    recipe: Recipe, prepared: PreparedData, divided: Divided, way: SplitStrategy, seed: int
) -> Folds:
    units, cv, rows = prepared.units, recipe.cv, prepared.rows
    labels = np.asarray(rows.column("label"))
    assert cv.folds is not None
    if way.by == "time":
        if cv.repeats > 1:
            rule = "go by time, of which there is one order: they cannot be dealt anew"
            raise RecipeError("--repeats", rule, cv.repeats, "Leave it out.")
        return forward(units, _ages(prepared, divided, way), cv.folds)
    how = ""
    if way.blocks is not None:
        blocks = way.blocks[divided.table.places(np.asarray(rows.column("row")))]
        of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
        units = whole_units(of_row, blocks)
        labels = np.zeros(len(rows), dtype=np.int64)
        how = f"whole {way.by}s held out; "
    several = "labels" in rows.rows.column_names and not how
    try:
        made = make_folds(
            units,
            labels,
            cv.folds,
            seed,
            repeats=cv.repeats,
            names=prepared.rows.classes if not how else (),
            several=label_matrix(rows) > 0 if several else None,
        )
    except SplitError as error:
        rule = f"{error.rule}, in {cv.folds} folds"
        raise SplitError(error.what, rule, error.value, MORE_ROWS) from error
    return Folds(made.folds, how + made.how)


def _ages(prepared: PreparedData, divided: Divided, way: SplitStrategy) -> Ages:
    assert way.ages is not None
    return np.asarray(way.ages[divided.table.places(np.asarray(prepared.rows.column("row")))])


def _of_next(prepared: PreparedData, made: Folds, fold: Fold, share: float, seed: int) -> Ints:
    """Rows of the next fold of the repeat, whole units, each class in proportion where it has the
    units for it."""
    of_repeat = [one for one in made if one.repeat == fold.repeat]
    rows = of_repeat[(fold.number + 1) % len(of_repeat)].held
    rows = np.intersect1d(rows, fold.train)
    part = share * len(fold.train) / max(1, len(rows))
    if part >= 1 and len(of_repeat) > 2:
        return rows
    part = min(part, 0.5)
    units, labels = prepared.units[rows], np.asarray(prepared.rows.column("label"))[rows]
    own = derive_seed(seed, f"validation {fold.repeat} {fold.number}")
    try:
        _, chosen = set_aside(units, labels, part, own, names=prepared.rows.classes)
    except SplitError:
        # A class with one unit there: rows judge without it, as long as they learn it.
        _, chosen = set_aside(units, np.zeros_like(labels), part, own)
    return rows[chosen]


def _newest(prepared: PreparedData, ages: Ages, fold: Fold, share: float) -> Ints:
    """The newest units of the training rows, about this share of them."""
    rows = fold.train
    units = np.unique(prepared.units[rows], return_inverse=True)[1]
    newest = np.full(int(units.max()) + 1, -np.inf)
    np.maximum.at(newest, units, ages[rows])
    order = np.argsort(-newest, kind="stable")
    taken = np.cumsum(np.bincount(units)[order])
    count = int(np.searchsorted(taken, share * len(rows))) + 1
    # At least one unit of two learns.
    count = max(1, min(count, len(order) - 1))
    return rows[np.isin(units, order[:count])]


def _check(prepared: PreparedData, fold: Fold, train: Ints) -> None:
    """Refuse a fold that has nothing to learn from, or not every class of what it answers."""
    labels = np.asarray(prepared.rows.column("label"))
    one_class = prepared.rows.columns.one_class
    missing = np.setdiff1d(labels[fold.held], labels[train]) if one_class else labels[:0]
    if len(missing):
        what = f"the class {prepared.rows.classes[int(missing[0])]!r}"
        rule = f"has no row to learn from in fold {fold.number + 1} of those that hold it out"
        raise SplitError(what, rule, None, MORE_ROWS)
    if not len(train):
        raise SplitError("the rows", "leave nothing to learn from", None, MORE_ROWS)
