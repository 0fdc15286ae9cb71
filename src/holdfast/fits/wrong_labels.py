"""Exclude rows from training and validation whose label is probably wrong
(``methods.drop_wrong_labels``, on by default under ``control.policy=adapt``).

Each training and validation row is predicted by linear probes on the base model's frozen vectors
and on its words, fitted on other rows. Where these predictions are evidence of mistakes
(``stats/label_errors.py``), all rows are predicted again by probes that were not fitted on the rows
whose most probable class is not their label, and the rows of which that then is true are excluded.
Test rows stay, and so do the rows that an outer fold predicts.

Both sides lose them. With training rows alone the guard would take the difference for overfitting,
and with wrong labels in the training sample alone for divergence: runs of 400 rows with a fifth of
wrong labels were stopped at a third of their updates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.control.ladder import Ladder
from holdfast.core.decisions import notify, record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.table import Table
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.prepare.model import with_log
from holdfast.quality.fold_predictions import cross_fit
from holdfast.recipe import Recipe
from holdfast.stats.label_errors import label_errors

NAME = "drop_wrong_labels"
KEY = f"methods.{NAME}"
CHECK = "dropped_labels"
# Rows are excluded from this statistic (Vuong's) and expected share of wrong labels on: on six sets
# with 400 rows and three draws each, one set as it is exceeded both, and with a fifth of wrong
# labels all sets of more than two classes did.
EVIDENCE, LEAST_SHARE = 3.0, 0.05
# Predictions by probes, and once more by probes without the rows that these contradict: of a fifth
# of labels exchanged for the most similar class that finds 64 % instead of 52 % (four sets of 400
# rows, two draws), with as few right ones among them. A third time finds few more.
ROUNDS = 2
# With more training and validation rows the probes take minutes.
MOST_ROWS = 3000
# No class loses more of its rows.
MOST_OF_CLASS = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class WrongLabels:
    """The probability that each row's label is wrong [n], and whether its most probable class is
    another one [n]; the ``evidence`` of mistakes."""

    probabilities: Floats
    contradicted: Ints
    evidence: float

    @property
    def share(self) -> float:
        """The expected share of wrong labels."""
        return float(self.probabilities.mean())

    @property
    def is_shown(self) -> bool:
        """Whether mistakes are shown, and enough of them."""
        return self.evidence >= EVIDENCE and self.share >= LEAST_SHARE

    def dropped(self, labels: Ints) -> Ints:
        """The places of the rows to exclude, ascending: the contradicted ones, of a class at most
        half of its rows, those most probably wrong."""
        places: list[int] = []
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            found = of_class[self.contradicted[of_class]]
            order = np.argsort(-self.probabilities[found], kind="stable")
            places += found[order][: int(MOST_OF_CLASS * len(of_class))].tolist()
        return np.sort(np.array(places, dtype=np.int64))


def drops_wrong_labels(recipe: Recipe) -> bool:
    """Whether rows are checked: where the recipe asks for it, or leaves it open and the policy
    acts."""
    asked = recipe.methods.get(NAME)
    return recipe.control.policy == Ladder.name if asked is None else asked is not False


def without_wrong_labels(
    prepared: PreparedData, train: Ints, valid: Ints
) -> tuple[PreparedData, Ints, Ints]:
    """The ``train`` and ``valid`` positions (equal in a cross-fitted fit) without rows whose label
    is probably wrong, and the data with the method in its recipe and with what was found; all as
    they are where the method is off.

    Raises ``RecipeError`` for rows that are not single texts with one class each.
    """
    recipe = prepared.recipe
    if not drops_wrong_labels(recipe):
        return prepared, train, valid
    if not has_classes(prepared):
        if NAME not in recipe.methods:
            return prepared, train, valid
        rule = "needs single texts with one class each"
        raise RecipeError(KEY, rule, recipe.task, "Remove this setting.")
    positions = np.union1d(train, valid)
    with record_decisions() as log:
        wrong = positions[_wrong_places(prepared, positions)]
    prepared = replace(
        with_log(prepared, log), recipe=recipe.with_changes(methods={**recipe.methods, NAME: True})
    )
    train, valid = (some[~np.isin(some, wrong)] for some in (train, valid))
    return prepared, train, valid


def _wrong_places(prepared: PreparedData, positions: Ints) -> Ints:
    """Which of the rows at ``positions`` have a label that is probably wrong."""
    none = np.zeros(0, dtype=np.int64)
    if len(positions) > MOST_ROWS:
        because = f"{len(positions):,} training and validation rows exceed {MOST_ROWS:,}"
        notify(Decision(KEY, "not checked", because))
        return none
    rows = prepared.rows.take(positions)
    # All rows in one pass, so that a vector does not depend on the other rows of a fit.
    vectors = last_layer_vectors(prepared, prepared.examples)[positions]
    wrong = find_wrong_labels(vectors, rows, prepared.recipe.seed)
    if wrong is None or not wrong.is_shown:
        because = "too few rows to test the labels" if wrong is None else _evidence(wrong)
        notify(Decision(KEY, "no rows excluded", because))
        return none
    dropped = wrong.dropped(np.asarray(rows.column("label")))
    _notify_of_rows(rows, dropped, wrong)
    return dropped


def find_wrong_labels(vectors: Floats, rows: Table, seed: int) -> WrongLabels | None:
    """The labels of ``rows`` with these ``vectors`` [n, d] against predictions from the other rows;
    ``None`` where there are too few."""
    labels, texts = np.asarray(rows.column("label")), rows.column("text")
    fitted, wrong = labels.copy(), None
    for _ in range(ROUNDS):
        predictions = cross_fit(vectors, texts, fitted, classes=len(rows.classes), seed=seed)
        if predictions is None:
            return wrong
        errors = label_errors(predictions.log_p, labels)
        classes = errors.true_classes(predictions.log_p, labels)
        wrong = WrongLabels(
            1 - classes[np.arange(len(labels)), labels],
            classes.argmax(axis=1) != labels,
            errors.evidence,
        )
        if not wrong.is_shown:
            return wrong
        # A row without a label is predicted, and no probe is fitted on it.
        fitted[wrong.dropped(labels)] = -1
    return wrong


def _evidence(wrong: WrongLabels) -> str:
    return (
        f"estimated share of wrong labels: {percent_phrase(wrong.share, 1)} (threshold "
        f"{percent_phrase(LEAST_SHARE)}); strength of evidence: z = {wrong.evidence:.1f} (Vuong's "
        f"test of out-of-fold predictions, threshold {EVIDENCE:g})"
    )


def _notify_of_rows(rows: Table, dropped: Ints, wrong: WrongLabels) -> None:
    share = len(dropped) / len(rows)
    because = (
        f"{len(dropped):,} of {len(rows):,} training and validation rows are excluded because "
        f"their labels are probably wrong; {_evidence(wrong)}; test rows are unchanged"
    )
    chosen = f"{count_phrase(len(dropped), 'row')} ({percent_phrase(share)})"
    notify(Decision(KEY, chosen, because, prominent=True))
    numbers = tuple(int(one) for one in np.asarray(rows.column("row"))[dropped])
    remedy = (
        "Check these rows, and correct wrong labels in the file: an annotator's decision is more "
        f"reliable. To train on all rows, use --set {KEY}=false."
    )
    notify(Finding(CHECK, "warn", share, len(dropped), numbers, because, remedy, True))
