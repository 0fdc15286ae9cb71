"""Every row by how much the other rows speak against its label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.quality.fold_answers import FoldLogProbabilities, log_softmax
from holdfast.stats.lapse import Lapse, lapse_rate

# Below 2 % of wrong labels, or with a rate open by more than a factor of two, nothing is promised
# of the rows at the top.
SURE_LOW, SURE_RATIO = 0.02, 2.0
# Of what the commonest class leaves open, the share that the answers get right: below it what is
# hard passed for what is wrong (MR, by 30 points).
SURE_SKILL = 0.55
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

    def precision(self, most: int) -> float | None:
        """The share of the first ``most`` rows that is expected to be labelled wrongly."""
        if self.wrong is None or not len(self.order):
            return None
        return float(self.wrong[: max(1, most)].mean())


def rank_labels(answers: FoldLogProbabilities) -> LabelRanking:
    """Rank by out-of-fold loss, the highest first: the cross-fitted self-confidence of confident
    learning (1911.00068), by a pool of probes.

    Where labels are wrong by chance, the rate ε of it is told from doubt by a fit to all rows
    (``stats/lapse.py``), and the chance that the label y of a row is wrong is

        ε (1 − p(y)) ÷ (c − 1)  ÷  [ (1 − ε) p(y) + ε (1 − p(y)) ÷ (c − 1) ]

    which is stated only where the whole 90 % interval of ε lies above 2 %, its ends are within a
    factor of two, and the answers get 55 % right of what the commonest class leaves open: in other
    data what the model does not know looks like what is wrong.
    """
    known = answers.known
    losses = answers.losses[known]
    order = known[np.lexsort((known, -losses))]
    log_p, given = answers.log_p[order], answers.labels[order]
    score = -np.expm1(log_p[np.arange(len(order)), given])
    lapse = lapse_rate(answers.log_p[known], answers.labels[known], level=LEVEL)
    sure = lapse.low >= SURE_LOW and lapse.high <= SURE_RATIO * lapse.low
    base = float(np.bincount(given).max()) / len(known)
    skill = (answers.right - base) / max(1 - base, 1e-12)
    sure = sure and skill >= SURE_SKILL and len(known) >= LEAST_ROWS
    wrong = None
    if sure:
        right = np.exp(log_softmax(log_p / lapse.temperature)[np.arange(len(given)), given])
        other = lapse.rate * (1 - right) / (log_p.shape[1] - 1)
        wrong = np.asarray(other / np.maximum((1 - lapse.rate) * right + other, 1e-300))
    return LabelRanking(order, given, log_p.argmax(axis=1), np.clip(score, 0, 1), lapse, wrong)
