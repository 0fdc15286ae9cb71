"""Learn from the probable classes of training rows where labels contradict the other rows
(``methods.correct_labels``).

Each training row is predicted by linear probes on the base model's frozen vectors and on its words,
fitted on other training rows of the same fit. Where these predictions are evidence of mistakes
(``stats/label_errors.py``), a row counts as its most probable class, with the probability of that
class as its weight. Validation and test rows keep their labels, and so do rows that are added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from holdfast.augment.registry import requested_enrichments
from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.table import Table
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.quality.fold_predictions import cross_fit
from holdfast.recipe import Recipe
from holdfast.stats.label_errors import label_errors
from holdfast.tasks.classes.encoding import EncodedTexts

NAME = "correct_labels"
KEY = f"methods.{NAME}"
CHECK = "corrected_labels"
# Labels are corrected from this statistic (Vuong's) and expected share of wrong labels on: on six
# sets with 400 rows and three draws each, one set as it is exceeded both, and with a fifth of wrong
# labels all sets of more than two classes did (linear probes alone; few whole runs were measured,
# benchmarks/correction.py).
EVIDENCE, LEAST_SHARE = 3.0, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedLabels:
    """The most probable class of each row and its probability [n]; the expected ``share`` of wrong
    labels, and the ``evidence`` of them."""

    labels: Ints
    weights: Floats
    share: float
    evidence: float


def is_requested(recipe: Recipe) -> bool:
    """Whether labels are to be corrected where there is evidence of mistakes."""
    return recipe.methods.get(NAME, False) is not False


def with_corrected_labels(
    training: EncodedTexts, rows: Table, prepared: PreparedData, positions: Ints, recipe: Recipe
) -> EncodedTexts:
    """The training examples at ``positions`` of the prepared data, with corrected labels where
    there is evidence of mistakes; ``rows`` is their table. Augmented rows have no weights: with
    ``enrich`` every row counts fully.

    Raises ``RecipeError`` for rows that are not single texts with one class each.
    """
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError(KEY, rule, recipe.task, "Leave it out.")
    vectors = last_layer_vectors(prepared, prepared.examples, positions)
    corrected = correct_labels(vectors, rows, recipe.seed)
    if corrected is None:
        because = f"{len(rows):,} training rows give no evidence of wrong labels"
        notify(Decision(KEY, "no label", because))
        return training
    changed = corrected.labels != training.labels
    _notify_of_changes(rows, changed, corrected)
    if requested_enrichments(recipe.enrich):
        return replace(training, labels=corrected.labels)
    weights = corrected.weights
    if training.weights is not None:
        weights = weights * training.weights
    return replace(training, labels=corrected.labels, weights=weights)


def correct_labels(vectors: Floats, rows: Table, seed: int) -> CorrectedLabels | None:
    """The probable classes of ``rows`` with these ``vectors`` [n, d]; ``None`` where there are too
    few rows, or no evidence of mistakes."""
    labels = np.asarray(rows.column("label"))
    predictions = cross_fit(
        vectors, rows.column("text"), labels, classes=len(rows.classes), seed=seed
    )
    if predictions is None:
        return None
    errors = label_errors(predictions.log_p, labels)
    probabilities = errors.true_classes(predictions.log_p, labels)
    share = 1 - float(probabilities[np.arange(len(labels)), labels].mean())
    if errors.evidence < EVIDENCE or share < LEAST_SHARE:
        return None
    labels, weights = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return CorrectedLabels(labels, weights, share, errors.evidence)


def _notify_of_changes(rows: Table, changed: Floats, corrected: CorrectedLabels) -> None:
    count, share = int(changed.sum()), float(changed.mean())
    because = (
        f"about {percent_phrase(corrected.share)} of the labels of the {len(rows):,} training rows "
        "are wrong by predictions from the other rows (Vuong's statistic "
        f"{corrected.evidence:.1f}, threshold {EVIDENCE:g}); {count_phrase(count, 'row')} whose "
        "label is probably wrong count as their most probable class, and each row counts with the "
        "probability of its class; validation and test labels are unchanged"
    )
    chosen = f"{count_phrase(count, 'label')} ({percent_phrase(share)})"
    notify(Decision(KEY, chosen, because, prominent=True))
    numbers = tuple(int(one) for one in np.asarray(rows.column("row"))[changed])
    remedy = (
        "Check these rows and correct wrong labels in the file: a person knows better. "
        f"{KEY}=false learns from the labels as they are."
    )
    notify(Finding(CHECK, "warn", share, count, numbers, because, remedy, True))
