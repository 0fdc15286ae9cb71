"""How the rows of a division are used: whether validation rows are set aside or learned from too,
and how a run without test rows is scored.

``train.folds`` says the first: 0 sets them aside, K folds learn from them too
(``fits/cross_fitting.py``). Left open, it is the switch point below that decides. For the second
see ``fits/row_roles.py``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify, recorded
from holdfast.core.errors import RecipeError
from holdfast.core.machine import processes
from holdfast.core.records import Decision, Ints
from holdfast.core.tasks import LABELLED_TEXTS
from holdfast.data.table import Splits, Table, TrainSplit, ValidSplit
from holdfast.fits.frozen import AUTO
from holdfast.fits.row_roles import LearningRows, outer_folds
from holdfast.plan.defaults import PASSIVE
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare_divided, with_added, with_log
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe

KEY = "train.folds"
USUAL_FOLDS = 3
# Of training and validation rows together; none until a benchmark shows where it pays.
MOST_ROWS = 0
VALID_GIVEN = "divides the training and validation rows, and validation rows are given"
LEARNED_TOO = "a validation row of the division: learned from too, judged out of fold"


def learning_of(recipe: Recipe, divided: Divided) -> LearningRows:
    """Prepare the rows of a division, and choose how they are used.

    Raises ``RecipeError`` where folds are asked for that these rows cannot have.
    """
    with recorded() as log:
        learning = _learning_of(recipe, divided)
    return replace(learning, prepared=with_log(learning.prepared, log))


def _learning_of(recipe: Recipe, divided: Divided) -> LearningRows:
    bare, train, valid = prepare_divided(recipe, divided.splits, divided.findings, extend=False)
    without_test = not len(divided.splits.test)
    if without_test:
        refuse_without_test(bare, divided)
    folds = folds_of(bare, divided, train, valid)
    bare = replace(bare, recipe=bare.recipe.changed(train={"folds": folds}))
    known, names = divided.tables, bare.recipe.data.names
    bare = with_general(bare, known)
    if folds:
        train = valid = np.union1d(train, valid)
        prepared = with_added(bare, train, valid[:0], (), known)
        divided = replace(divided, splits=all_training(divided.splits, prepared.rows))
    else:
        prepared = with_added(bare, train, valid, divided.unlabelled, known)
    if folds or without_test:
        # Each fold works the names out from its own rows, so what was asked for is what is kept.
        as_asked = prepared.recipe.changed(data={"names": names})
        prepared = replace(prepared, recipe=as_asked)
    if prepared.recipe.distill.teacher:
        # What a teacher is made of takes a quarter of a second to load.
        from holdfast.fits.lessons import with_lessons

        prepared = with_lessons(prepared, divided)
    learning = LearningRows(prepared, train, valid, folds, divided, names)
    if not without_test:
        return learning
    outer = outer_folds(learning)
    because = (
        "data.split.test=0: each fold is answered by a model made anew, in the same way, from the "
        "other rows; the score is out of fold, for the model from all rows"
    )
    notify(Decision("score", f"{len(outer)} outer folds", because, prominent=True))
    return replace(learning, outer=outer)


def all_training(splits: Splits, rows: Table, note: str = LEARNED_TOO) -> Splits:
    """The division as a run uses it that learns from its validation ``rows`` too, with a ``note``
    for each of these."""
    records = splits.records
    split, notes = records["split"].to_pylist(), records["note"].to_pylist()
    for place, side in enumerate(split):
        if side == "valid":
            split[place] = "train"
            notes[place] = "; ".join(filter(None, (notes[place], note)))
    import pyarrow as pa

    for name, column in (("split", split), ("note", notes)):
        at = records.column_names.index(name)
        records = records.set_column(at, name, pa.array(column, pa.string()))
    return replace(splits, train=TrainSplit(rows), valid=ValidSplit(rows.take([])), records=records)


def folds_of(prepared: PreparedData, divided: Divided, train: Ints, valid: Ints) -> int:
    """How many folds, 0 for none. Raises ``RecipeError`` for ones that were asked for and cannot
    be."""
    folds, rows = prepared.recipe.train.folds, len(train) + len(valid)
    if folds == 0:
        return 0
    against = against_folds(prepared, divided)
    if folds and against:
        raise RecipeError(KEY, against, folds, f"Leave it out, or set {KEY}=0.")
    if folds:
        because = (
            "set by you: validation rows are learned from too, and every choice is out of fold"
        )
    elif rows > MOST_ROWS or against or _least_units(prepared) < USUAL_FOLDS:
        return 0
    else:
        folds = USUAL_FOLDS
        because = (
            f"{len(valid)} validation rows of {rows} tell too little, and are learned from too: "
            f"every choice is made out of fold ({KEY}=0 sets them aside)"
        )
    notify(Decision("cross-fitting", f"{folds} folds", because, prominent=True))
    return folds


def against_folds(prepared: PreparedData, divided: Divided) -> str | None:
    """Why these rows cannot be cross-fitted, as the rest of a sentence about ``train.folds``."""
    recipe, columns = prepared.recipe, prepared.rows.columns
    data, one_class = recipe.data, columns.one_class
    if recipe.task not in LABELLED_TEXTS or not one_class:
        of = recipe.task if one_class else f"data.label_kind={columns.label_kind}"
        return f"does not exist for {of} yet: it needs texts with one class each"
    given = [table.source for table in divided.given]
    if data.valid is not None or (len(given) and data.test is None):
        return VALID_GIVEN
    policy = recipe.control.policy
    hindering = {
        "data.features": data.features not in (None, False),
        "data.unlabelled": data.unlabelled is not None,
        # A teacher knows the labels of the rows that each fold is to answer.
        "distill.teacher": bool(recipe.distill.teacher),
        "data.synthesize": data.synthesize is not None,
        "data.split.by": data.split.by != "rows",
        "data.split.stable": data.split.stable,
        "train.max_minutes": recipe.train.max_minutes is not None,
        # A policy that acts goes by the looks of its own run; the folds have looks of theirs.
        f"control.policy={policy}": policy not in PASSIVE,
        # The layers would be chosen by labels of the rows that each fold is to answer.
        "model.freeze=auto": recipe.model.freeze == AUTO,
    }
    found = [name for name, there in hindering.items() if there]
    if found:
        return f"does not go together with {' and '.join(found)}"
    return "needs a single process" if processes() > 1 else None


def against_dealing(recipe: Recipe, divided: Divided) -> str | None:
    """Why the training and validation rows of a division are not to be dealt into folds by chance,
    each answered by a fit of the others, as the rest of a sentence about what asks for it."""
    records = divided.splits.records.select(["file", "split"]).to_pylist()
    judging = {line["file"] for line in records if line["split"] == "valid"}
    if judging - {divided.table.source}:
        return VALID_GIVEN
    if (by := recipe.data.split.by) not in ("rows", "group"):
        # What is newer, or of the same source, would teach what it is to answer; groups stay whole.
        return f"deals rows by chance, and these are divided by {by} (data.split.by)"
    return None


def refuse_without_test(prepared: PreparedData, divided: Divided) -> None:
    """Raise ``RecipeError`` where the score of rows without test rows cannot be out of fold."""
    against = against_folds(prepared, divided)
    if against:
        rule = f"leaves no test rows, and an out-of-fold score {against}"
        remedy = (
            "Leave a share for test rows, or name a file with data.test; or leave the other out."
            if "together" in against
            else "Leave a share for test rows, or name a file with data.test."
        )
        raise RecipeError("data.split.test", rule, 0, remedy)


def _least_units(prepared: PreparedData) -> int:
    """Of the class with the fewest units, how many it has: each fold needs one."""
    labels = np.asarray(prepared.rows.column("label"))
    return min(len(np.unique(prepared.units[labels == label])) for label in np.unique(labels))
