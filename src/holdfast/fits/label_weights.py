"""Weight training rows by the probability that their label is right (``methods.label_weights``, on
by default under ``control.policy=adapt``).

Each training row is predicted by linear probes on the base model's frozen vectors and on its words,
fitted on other training rows of the same fit, and in a cross-fitted run by the network of its fold.
Where these predictions are evidence of mistakes (``stats/label_errors.py``), all rows are predicted
again by probes that were not fitted on the rows whose most probable class is not their label, and
the loss of a row is weighted by the probability that its label is right. The rows stay where they
are: training and validation rows have the same share of wrong labels, so the guard compares like
with like. Where rows were excluded from training alone, it took the cleaner training sample for
overfitting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.table import Table
from holdfast.models.base import Network
from holdfast.plan.control import ADAPT
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.quality.fold_predictions import cross_fit
from holdfast.recipe import Recipe
from holdfast.stats.label_errors import EVIDENCE, LEAST_SHARE, WrongLabels, wrong_labels

NAME = "label_weights"
KEY = f"methods.{NAME}"
CHECK = "doubtful_labels"
# Predictions by probes, and once more by probes without the rows that these contradict: of a fifth
# of labels exchanged for the most similar class that finds 64 % instead of 52 % (four sets of 400
# rows, two draws), with as few right ones among them. A third time finds few more.
ROUNDS = 2
# With more training and validation rows the probes take minutes.
MOST_ROWS = 3000
# The mean weight of a class's rows is no smaller.
LEAST_OF_CLASS = 0.5


def with_policy(recipe: Recipe, prepared: PreparedData) -> Recipe:
    """The recipe of a fit with the method on where the policy acts and the recipe leaves it open,
    for single texts with one class each."""
    is_open = recipe.control.policy == ADAPT and NAME not in recipe.methods
    if not is_open or not has_classes(prepared):
        return recipe
    return recipe.with_changes(methods={NAME: True})


def label_weights(
    prepared: PreparedData, positions: Ints, recipe: Recipe, predicted: Floats | None = None
) -> Floats | None:
    """The weights of the training rows at ``positions`` [n]; ``None`` where the method is off or
    nothing shows mistakes. ``predicted`` are logits [n, c] of networks that did not learn from the
    row.

    Raises ``RecipeError`` for rows that are not single texts with one class each.
    """
    if recipe.methods.get(NAME, False) is False:
        return None
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError(KEY, rule, recipe.task, "Remove this setting.")
    if len(prepared) > MOST_ROWS:
        because = f"{len(prepared):,} training and validation rows exceed {MOST_ROWS:,}"
        notify(Decision(KEY, "not checked", because))
        return None
    rows, found = prepared.rows.take(positions), _found_in(prepared)
    key = positions.tobytes(), recipe.seed, None if predicted is None else predicted.tobytes()
    if key not in found.wrong:
        vectors = found.vectors[positions]
        found.wrong[key] = find_wrong_labels(vectors, rows, recipe.seed, predicted)
    wrong = found.wrong[key]
    if wrong is None or not wrong.is_shown:
        because = "too few rows to test the labels" if wrong is None else _evidence(wrong)
        notify(Decision(KEY, "all rows have the same weight", because))
        return None
    weights = row_weights(wrong, np.asarray(rows.column("label")))
    _notify_of_rows(rows, wrong, weights)
    return weights


def row_weights(wrong: WrongLabels, labels: Ints) -> Floats:
    """The weight of each row [n], in (0, 1]: the probability that its label is right; of a class
    whose mean would be less than a half, moved towards 1 until it is a half."""
    weights = np.maximum(1 - wrong.probabilities, 1e-3)
    for label in np.unique(labels):
        mean = weights[labels == label].mean()
        missing = max(0.0, LEAST_OF_CLASS - mean) / (1 - mean) if mean < 1 else 0.0
        weights[labels == label] += missing * (1 - weights[labels == label])
    return weights


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The vectors of all prepared ``rows``, and the results for some of them, by their positions,
    the seed and the predictions: a cross-fitted run has up to six plans on the same rows."""

    rows: Table
    vectors: Floats
    wrong: dict[tuple[object, ...], WrongLabels | None] = field(default_factory=dict)


_FOUND: WeakKeyDictionary[Network, _Found] = WeakKeyDictionary()


def _found_in(prepared: PreparedData) -> _Found:
    network = prepared.loaded.network
    found = _FOUND.get(network)
    if found is None or found.rows is not prepared.rows:
        # All rows in one pass, so that a vector does not depend on the other rows of a fit.
        vectors = last_layer_vectors(prepared, prepared.examples)
        _FOUND[network] = found = _Found(prepared.rows, vectors)
    return found


def find_wrong_labels(
    vectors: Floats, rows: Table, seed: int, predicted: Floats | None = None
) -> WrongLabels | None:
    """The labels of ``rows`` with these ``vectors`` [n, d] against predictions from the other rows;
    ``None`` where there are too few. ``predicted`` as in ``label_weights``."""
    labels, texts = np.asarray(rows.column("label")), rows.column("text")
    fitted, wrong = labels.copy(), None
    for _ in range(ROUNDS):
        predictions = cross_fit(
            vectors, texts, fitted, classes=len(rows.classes), seed=seed, tuned_log_p=predicted
        )
        if predictions is None:
            return wrong
        wrong = wrong_labels(predictions.log_p, labels)
        if not wrong.is_shown:
            return wrong
        # A row without a label is predicted, and no probe is fitted on it.
        fitted[_most_doubtful(wrong, labels)] = -1
    return wrong


def _most_doubtful(wrong: WrongLabels, labels: Ints) -> Ints:
    """The places of the contradicted rows, of a class at most half of its rows."""
    places: list[int] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        found = of_class[wrong.contradicted[of_class]]
        order = np.argsort(-wrong.probabilities[found], kind="stable")
        places += found[order][: len(of_class) // 2].tolist()
    return np.sort(np.array(places, dtype=np.int64))


def _evidence(wrong: WrongLabels) -> str:
    return (
        f"estimated share of wrong labels: {percent_phrase(wrong.share, 1)} (threshold "
        f"{percent_phrase(LEAST_SHARE)}); strength of evidence: z = {wrong.evidence:.1f} (Vuong's "
        f"test on out-of-fold predictions, threshold {EVIDENCE:g})"
    )


def _notify_of_rows(rows: Table, wrong: WrongLabels, weights: Floats) -> None:
    found = np.flatnonzero(wrong.contradicted)
    because = (
        "each training row is weighted by the probability that its label is correct; probably "
        f"wrong labels: {len(found):,} of {len(rows):,} ({CHECK})"
    )
    chosen = f"mean weight {weights.mean():.2f}"
    notify(Decision(KEY, chosen, because, prominent=True))
    numbers = tuple(int(one) for one in np.asarray(rows.column("row"))[found])
    remedy = (
        "Check these rows and correct wrong labels in the file: an annotator decides more "
        f"reliably than this estimate. To give all rows the same weight, use --set {KEY}=false."
    )
    share = len(found) / len(rows)
    because = (
        f"{len(found):,} of {count_phrase(len(rows), 'training row')} probably have a wrong label: "
        f"another class is more probable; {_evidence(wrong)}"
    )
    notify(Finding(CHECK, "warn", share, len(found), numbers, because, remedy, True))
