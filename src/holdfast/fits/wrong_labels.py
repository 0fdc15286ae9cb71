"""Do not learn from training rows whose label is probably wrong (``methods.drop_wrong_labels``, on
by default under ``control.policy=adapt``).

Each training row is predicted by linear probes on the base model's frozen vectors and on its words,
fitted on other training rows of the same fit. Where these predictions are evidence of mistakes
(``stats/label_errors.py``), all rows are predicted again by probes that were not fitted on the rows
whose most probable class is not their label, and the rows of which that then is true get weight 0:
they are in no update, and no head is fitted to them. They stay in the training sample that is
evaluated. Without them it would have fewer wrong labels than the validation rows, a gap that the
guard would take for overfitting: with a fifth of wrong labels, one of two runs of 400 rows was
stopped at a sixth of its updates.

Validation and test rows stay as they are, and so do rows that are added. Each fold of a
cross-fitted run chooses by its own training rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.control.ladder import Ladder
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.table import Table
from holdfast.models.base import Network
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.quality.fold_predictions import cross_fit
from holdfast.recipe import Recipe
from holdfast.stats.label_errors import label_errors

NAME = "drop_wrong_labels"
KEY = f"methods.{NAME}"
CHECK = "dropped_labels"
# Rows get weight 0 from this statistic (Vuong's) and expected share of wrong labels on: on six sets
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
        """The places of the rows that get weight 0, ascending: the contradicted ones, of a class at
        most half of its rows, those most probably wrong."""
        places: list[int] = []
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            found = of_class[self.contradicted[of_class]]
            order = np.argsort(-self.probabilities[found], kind="stable")
            places += found[order][: int(MOST_OF_CLASS * len(of_class))].tolist()
        return np.sort(np.array(places, dtype=np.int64))


def with_policy(recipe: Recipe, prepared: PreparedData) -> Recipe:
    """The recipe of a fit with the method on where the policy acts and the recipe leaves it open,
    for single texts with one class each."""
    is_open = recipe.control.policy == Ladder.name and NAME not in recipe.methods
    if not is_open or not has_classes(prepared):
        return recipe
    return recipe.with_changes(methods={NAME: True})


def wrong_labels(prepared: PreparedData, positions: Ints, recipe: Recipe) -> Ints:
    """Which of the training rows at ``positions`` have a label that is probably wrong: places in
    ``positions``, ascending; none where the method is off or nothing shows mistakes.

    Raises ``RecipeError`` for rows that are not single texts with one class each.
    """
    none = np.zeros(0, dtype=np.int64)
    if recipe.methods.get(NAME, False) is False:
        return none
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError(KEY, rule, recipe.task, "Remove this setting.")
    if len(prepared) > MOST_ROWS:
        because = f"{len(prepared):,} training and validation rows exceed {MOST_ROWS:,}"
        notify(Decision(KEY, "not checked", because))
        return none
    rows, found = prepared.rows.take(positions), _found_in(prepared)
    key = positions.tobytes(), recipe.seed
    if key not in found.wrong:
        found.wrong[key] = find_wrong_labels(found.vectors[positions], rows, recipe.seed)
    wrong = found.wrong[key]
    if wrong is None or not wrong.is_shown:
        because = "too few rows to test the labels" if wrong is None else _evidence(wrong)
        notify(Decision(KEY, "no rows excluded", because))
        return none
    dropped = wrong.dropped(np.asarray(rows.column("label")))
    _notify_of_rows(rows, dropped, wrong)
    return dropped


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The vectors of all prepared ``rows``, and what was found for some of them, by their positions
    and the seed: a cross-fitted run has up to six plans on the same rows."""

    rows: Table
    vectors: Floats
    wrong: dict[tuple[bytes, int], WrongLabels | None] = field(default_factory=dict)


_FOUND: WeakKeyDictionary[Network, _Found] = WeakKeyDictionary()


def _found_in(prepared: PreparedData) -> _Found:
    network = prepared.loaded.network
    found = _FOUND.get(network)
    if found is None or found.rows is not prepared.rows:
        # All rows in one pass, so that a vector does not depend on the other rows of a fit.
        vectors = last_layer_vectors(prepared, prepared.examples)
        _FOUND[network] = found = _Found(prepared.rows, vectors)
    return found


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
        f"estimated share of wrong labels: {percent_phrase(wrong.share)} (threshold "
        f"{percent_phrase(LEAST_SHARE)}); strength of evidence: z = {wrong.evidence:.1f} (Vuong's "
        f"test of out-of-fold predictions, threshold {EVIDENCE:g})"
    )


def _notify_of_rows(rows: Table, dropped: Ints, wrong: WrongLabels) -> None:
    share = len(dropped) / len(rows)
    because = (
        f"the model does not learn from {len(dropped):,} of {len(rows):,} training rows, whose "
        f"labels are probably wrong; {_evidence(wrong)}; validation and test rows are unchanged"
    )
    chosen = f"{count_phrase(len(dropped), 'row')} ({percent_phrase(share)})"
    notify(Decision(KEY, chosen, because, prominent=True))
    numbers = tuple(int(one) for one in np.asarray(rows.column("row"))[dropped])
    remedy = (
        "Check these rows, and correct wrong labels in the file: an annotator's decision is more "
        f"reliable. To train on all rows, use --set {KEY}=false."
    )
    notify(Finding(CHECK, "warn", share, len(dropped), numbers, because, remedy, True))
