"""Rankings for annotators: labels to correct first, and rows to label next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.probe import scale_features
from holdfast.quality.fold_predictions import (
    FoldLogProbabilities,
    choose_penalty,
    log_softmax,
    probe_logits,
)
from holdfast.stats.label_errors import WrongLabels, wrong_labels
from holdfast.stats.lapse import Lapse, lapse_rate, true_class_probabilities

# Below 2 % of wrong labels, or with an interval wider than a factor of two, no share of wrong
# labels is stated for the top rows.
RELIABLE_MIN_RATE, RELIABLE_MAX_RATIO = 0.02, 2.0
# Least share of the majority-class baseline's errors that the predictions remove. Below it, hard
# rows were taken for wrong labels (on MR, by 30 points).
RELIABLE_MIN_SKILL = 0.55
LEAST_ROWS = 200
LEVEL = 0.90


@dataclass(frozen=True)
class LabelRanking:
    """Labelled rows by doubt: their positions in ``order``, the most doubtful first; for each of
    them the ``given`` and ``suggested`` classes [n] and a ``score`` [n], 1 − the probability of the
    label. ``wrong`` [n] is the probability that the label is wrong under the estimated ``lapse``;
    ``None`` if that is too uncertain. ``mistakes`` [n, in this order] may be confusions of certain
    classes."""

    order: Ints
    given: Ints
    suggested: Ints
    score: Floats
    lapse: Lapse
    wrong: Floats | None
    mistakes: WrongLabels

    def precision(self, count: int) -> float | None:
        """The expected share of wrong labels among the first ``count`` rows."""
        if self.wrong is None or not len(self.order):
            return None
        return float(self.wrong[: max(1, count)].mean())


def rank_labels(predictions: FoldLogProbabilities) -> LabelRanking:
    """Rank by out-of-fold loss, the highest first: the cross-fitted self-confidence of confident
    learning (1911.00068), from a pool of probes.

    If labels are wrong at random, a fit to all rows separates their rate from uncertainty, and the
    probability that the label of a row is wrong follows (``stats/lapse.py``).

    People also confuse certain classes, which such a rate does not see: ``mistakes`` have a rate
    for each pair of classes (``stats/label_errors.py``), and no interval.

    The share is stated only if the 90 % interval of ε lies above 2 %, its ends are within a factor
    of two, and the predictions remove 55 % of the errors of the majority-class baseline. In other
    data, rows that the model cannot predict look like wrong labels.
    """
    labelled = predictions.labelled_rows
    losses = predictions.losses[labelled]
    order = labelled[np.lexsort((labelled, -losses))]
    log_p, given = predictions.log_p[order], predictions.labels[order]
    score = -np.expm1(log_p[np.arange(len(order)), given])
    lapse = lapse_rate(predictions.log_p[labelled], predictions.labels[labelled], level=LEVEL)
    is_reliable = lapse.low >= RELIABLE_MIN_RATE and lapse.high <= RELIABLE_MAX_RATIO * lapse.low
    majority_share = float(np.bincount(given).max()) / len(labelled)
    skill = (predictions.accuracy - majority_share) / max(1 - majority_share, 1e-12)
    is_reliable = is_reliable and skill >= RELIABLE_MIN_SKILL and len(labelled) >= LEAST_ROWS
    wrong = None
    if is_reliable:
        true_classes = true_class_probabilities(log_p, given, lapse)
        wrong = 1 - true_classes[np.arange(len(given)), given]
    suggested, mistakes = log_p.argmax(axis=1), wrong_labels(log_p, given)
    return LabelRanking(order, given, suggested, np.clip(score, 0, 1), lapse, wrong, mistakes)


# With fewer classes, selected rows taught less than random rows.
LEAST_CLASSES = 20
MAX_RANKED = 2000
# Labelled rows that are compared at a time, and the fewest labelled rows for a selection.
CHUNK_ROWS = 1500
MIN_LABELLED = 20
MEASURED = (
    "with 200 more rows of BANKING77 (77 classes), a linear probe reached 74.9 % if they were "
    "selected and 73.0 % if random; with 100 more rows of TREC (6 classes) 71.9 % and 72.4 % "
    "(means of four draws)"
)


@dataclass(frozen=True, slots=True)
class LabellingOrder:
    """Unlabelled rows in the order to label them: positions in ``order``; ``ranked`` is whether
    they were selected or drawn at random, and ``because`` why."""

    order: Ints
    ranked: bool
    because: str


def rank_for_labelling(
    vectors: Floats, labels: Ints, unlabelled: Floats, *, classes: int, seed: int
) -> LabellingOrder:
    """Order unlabelled rows by how much their labels would teach; at most 2,000 are returned.

    With 20 classes or more, each next row has the largest u · d among the rest. u is one minus the
    margin between its two most probable classes, from a probe on the labelled rows. d is its
    squared distance to the nearest row that is labelled or was selected before. This selects
    uncertain rows that differ from each other (greedy k-centre, 1708.00489, weighted by margin
    sampling). With fewer classes, or fewer than 20 labelled rows, the order is random, by the seed.

    ``vectors`` [n, d] and ``unlabelled`` [m, d] have unit length; ``labels`` [n], −1 if unknown.
    """
    labelled = np.flatnonzero(labels >= 0)
    too_few = len(np.unique(labels[labelled])) < 2 or len(labelled) < MIN_LABELLED
    if classes < LEAST_CLASSES or too_few:
        because = (
            "with fewer than 20 labelled rows, or one class, uncertainty cannot be estimated"
            if too_few
            else f"with fewer than {LEAST_CLASSES} classes, selected rows taught no "
            f"more than random ones (measured: {MEASURED})"
        )
        order = generator(seed, "label next").permutation(len(unlabelled))[:MAX_RANKED]
        return LabellingOrder(order, False, because)
    uncertainty = _margin_uncertainty(
        vectors[labelled], labels[labelled], unlabelled, classes, seed
    )
    distance = np.full(len(unlabelled), np.inf)
    for start in range(0, len(labelled), CHUNK_ROWS):
        similarity = (unlabelled @ vectors[labelled[start : start + CHUNK_ROWS]].T).max(axis=1)
        distance = np.minimum(distance, 2 - 2 * similarity)
    available = np.ones(len(unlabelled), dtype=bool)
    selected: list[int] = []
    for _ in range(min(MAX_RANKED, len(unlabelled))):
        # A duplicate of a labelled or selected row has distance 0 and comes last.
        best = int(np.argmax(np.where(available, uncertainty * np.maximum(distance, 0.0), -1.0)))
        selected.append(best)
        available[best] = False
        distance = np.minimum(distance, 2 - 2 * unlabelled @ unlabelled[best])
    because = (
        f"{classes} classes: uncertain rows that differ from each other come first; {MEASURED}"
    )
    return LabellingOrder(np.array(selected, dtype=np.int64), True, because)


def _margin_uncertainty(
    vectors: Floats, labels: Ints, unlabelled: Floats, classes: int, seed: int
) -> Floats:
    """One minus the margin between the two most probable classes [m]."""
    both = np.concatenate([vectors, unlabelled]).astype(np.float64)
    standardized = scale_features(both)[0]
    x, unlabelled_x = standardized[: len(labels)], standardized[len(labels) :]
    c = choose_penalty(x, labels, np.arange(len(labels)), seed)
    sorted_probabilities = np.sort(
        np.exp(log_softmax(probe_logits(x, labels, unlabelled_x, classes, c))), axis=1
    )
    return np.asarray(1 - (sorted_probabilities[:, -1] - sorted_probabilities[:, -2]))
