"""Rows in the order in which a person should see them: labels to correct, rows to label next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.quality.fold_predictions import (
    FoldLogProbabilities,
    choose_penalty,
    log_softmax,
    probe_logits,
    standardize,
)
from holdfast.stats.lapse import Lapse, lapse_rate

# Below 2 % of wrong labels, or with a rate open by more than a factor of two, nothing is promised
# of the rows at the top.
RELIABLE_MIN_RATE, RELIABLE_MAX_RATIO = 0.02, 2.0
# Of what the commonest class leaves open, the share that the answers get right: below it what is
# hard passed for what is wrong (MR, by 30 points).
RELIABLE_MIN_SKILL = 0.55
LEAST_ROWS = 200
LEVEL = 0.90


@dataclass(frozen=True)
class LabelRanking:
    """``order`` positions of labelled rows, the most doubtful first; of each of them ``given`` and
    ``suggested`` [n] classes and a ``score`` [n], 1 − the probability of the label. ``wrong`` [n]
    is the probability that the label is wrong under the estimated ``lapse``, ``None`` where that is
    too open to promise anything."""

    order: Ints
    given: Ints
    suggested: Ints
    score: Floats
    lapse: Lapse
    wrong: Floats | None

    def precision(self, count: int) -> float | None:
        """The share of the first ``count`` rows that is expected to be labelled wrongly."""
        if self.wrong is None or not len(self.order):
            return None
        return float(self.wrong[: max(1, count)].mean())


def rank_labels(predictions: FoldLogProbabilities) -> LabelRanking:
    """Rank by out-of-fold loss, the highest first: the cross-fitted self-confidence of confident
    learning (1911.00068), by a pool of probes.

    Where labels are wrong by chance, the rate ε of it is told from doubt by a fit to all rows
    (``stats/lapse.py``), and the chance that the label y of a row is wrong is

        ε (1 − p(y)) ÷ (c − 1)  ÷  [ (1 − ε) p(y) + ε (1 − p(y)) ÷ (c − 1) ]

    which is stated only where the whole 90 % interval of ε lies above 2 %, its ends are within a
    factor of two, and the answers get 55 % right of what the commonest class leaves open: in other
    data what the model does not know looks like what is wrong.
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
        correct_probability = np.exp(
            log_softmax(log_p / lapse.temperature)[np.arange(len(given)), given]
        )
        wrong_probability = lapse.rate * (1 - correct_probability) / (log_p.shape[1] - 1)
        wrong = np.asarray(
            wrong_probability
            / np.maximum((1 - lapse.rate) * correct_probability + wrong_probability, 1e-300)
        )
    return LabelRanking(order, given, log_p.argmax(axis=1), np.clip(score, 0, 1), lapse, wrong)


# With fewer classes rows that were chosen taught less than rows at random.
LEAST_CLASSES = 20
MAX_RANKED = 2000
# Labelled rows that are compared at once; below so many nothing is doubted with reason.
CHUNK_ROWS = 1500
MIN_LABELLED = 20
MEASURED = (
    "200 rows more of BANKING77 (77 classes) brought a probe to 74.9 % where chosen and 73.0 % at "
    "random, 100 more of TREC (6 classes) to 71.9 % and 72.4 % (means of four draws)"
)


@dataclass(frozen=True, slots=True)
class LabellingOrder:
    """``order`` positions of unlabelled rows, the one to label first in front; ``ranked`` whether
    they were chosen or merely drawn, and ``because`` why."""

    order: Ints
    ranked: bool
    because: str


def rank_for_labelling(
    vectors: Floats, labels: Ints, unlabelled: Floats, *, classes: int, seed: int
) -> LabellingOrder:
    """Order unlabelled rows by what their labels would teach; the first 2,000 are given.

    Of 20 classes and more each next row is the one with the largest u · d, where u is one minus the
    margin between its two likeliest classes by a probe on the labelled rows, and d its squared
    distance to the nearest row that is labelled or was chosen before it: doubtful rows that lie
    apart. (The greedy form of a k-centre choice, 1708.00489, weighed by the doubt of margin
    sampling.) Of fewer classes, or fewer than 20 labelled rows, at random, by the seed.

    vectors [n, d] and unlabelled [m, d] unit length; labels [n], −1 where unknown.
    """
    labelled = np.flatnonzero(labels >= 0)
    too_few = len(np.unique(labels[labelled])) < 2 or len(labelled) < MIN_LABELLED
    if classes < LEAST_CLASSES or too_few:
        because = (
            "fewer than 20 rows with a label, or one class: nothing tells doubt yet"
            if too_few
            else f"of {classes} classes rows at random teach as much as chosen ones: {MEASURED}"
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
        # A copy of what is labelled or chosen has no gap and comes last, but it comes.
        best = int(np.argmax(np.where(available, uncertainty * np.maximum(distance, 0.0), -1.0)))
        selected.append(best)
        available[best] = False
        distance = np.minimum(distance, 2 - 2 * unlabelled @ unlabelled[best])
    because = f"{classes} classes: doubtful rows that lie apart come first; {MEASURED}"
    return LabellingOrder(np.array(selected, dtype=np.int64), True, because)


def _margin_uncertainty(
    vectors: Floats, labels: Ints, unlabelled: Floats, classes: int, seed: int
) -> Floats:
    """One minus the margin between the two likeliest classes [m]."""
    standardized = standardize(np.concatenate([vectors, unlabelled]))
    x, unlabelled_x = standardized[: len(labels)], standardized[len(labels) :]
    c = choose_penalty(x, labels, np.arange(len(labels)), seed)
    sorted_probabilities = np.sort(
        np.exp(log_softmax(probe_logits(x, labels, unlabelled_x, classes, c))), axis=1
    )
    return np.asarray(1 - (sorted_probabilities[:, -1] - sorted_probabilities[:, -2]))
