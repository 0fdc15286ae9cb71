"""A score as a mean over rows, whatever the task, so that two models are compared row by row.

Accuracy is one already. A ratio of sums (F1, bits a byte) becomes one by its first order
(``stats/ratio.py``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.stats.ratio import ratio_rows

# The metric that a choice is about, by the kind of answer; and whether more of it is better.
METRICS = {
    "class": ("accuracy", True),
    "several": ("f1_micro", True),
    "number": ("r2", True),
    "tags": ("entity_f1", True),
    "text": ("bits_per_byte", False),
}


def right_rows(answers: Floats, labels: Ints) -> Floats:
    """1 where the largest of ``answers`` [n, C] is the label's, else 0."""
    return np.asarray(answers.argmax(axis=1) == labels, dtype=np.float64)


def set_rows(holds: npt.NDArray[np.bool_], labels: Floats) -> Floats:
    """Of labels that hold and were said to, [n, L] each: the rows of micro F1."""
    truth = labels > 0.5
    hits = (truth & holds).sum(axis=1).astype(np.float64)
    return ratio_rows(2 * hits, (truth.sum(axis=1) + holds.sum(axis=1)).astype(np.float64))


def entity_rows(counts: Floats) -> Floats:
    """Of entities found, predicted and labelled [n, 3]: the rows of entity F1."""
    wide = counts.astype(np.float64)
    return ratio_rows(2 * wide[:, 0], wide[:, 1] + wide[:, 2])


def number_rows(answers: Floats, truth: Floats) -> Floats:
    """The rows of R² = 1 − Σ e² ÷ Σ (y − ȳ)²; NaN where the numbers do not vary."""
    wide = truth.astype(np.float64)
    spread = float(np.var(wide))
    if not spread:
        return np.full(len(wide), np.nan)
    return np.asarray(1 - (answers - wide) ** 2 / spread)


def bits_rows(nats: Floats, sizes: Floats) -> Floats:
    """Of the losses of whole texts in nats [n] and their UTF-8 bytes [n]: the rows of bits a byte,
    which models of other tokens share."""
    return ratio_rows(nats / np.log(2), np.asarray(sizes, dtype=np.float64))
