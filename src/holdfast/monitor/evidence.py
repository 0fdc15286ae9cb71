"""Validation losses of a history, row by row, with confidence taken out where that is possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints, Snapshot
from holdfast.stats.intervals import fisher_above
from holdfast.stats.paired_tests import loss_rows, newcombe, paired_t
from holdfast.stats.temperature import best_temperature, losses_at, recover_labels
from holdfast.stats.two_samples import holm

LEVEL = 0.05
Bools = npt.NDArray[np.bool_]


def validation_losses(history: Sequence[Snapshot]) -> tuple[Floats, bool]:
    """Per-row validation losses [n, snapshots], after each snapshot's best temperature where all
    of them kept their logits, else raw; and which."""
    if any(snapshot.valid_logits is None for snapshot in history):
        return raw_losses(history), False
    columns = []
    for snapshot in history:
        logits = np.asarray(snapshot.valid_logits)
        labels = recover_labels(logits, snapshot.valid_losses)
        # The snapshot's own where it has one, so that nothing is fitted twice at every look.
        temperature = snapshot.temperature
        if not np.isfinite(temperature) or temperature <= 0:
            temperature = best_temperature(logits, labels)[0]
        columns.append(losses_at(logits, labels, temperature))
    return np.stack(columns, axis=1), True


def raw_losses(history: Sequence[Snapshot]) -> Floats:
    """Per-row validation losses [n, snapshots], whose mean is the loss of each snapshot."""
    return np.stack([loss_rows(one.valid_losses, one.valid_tokens) for one in history], axis=1)


def general_rows(look: Snapshot) -> Floats | None:
    """The rows [n] of the loss on the general probe, where there is one."""
    losses = look.general_losses
    return None if losses is None else loss_rows(losses, look.general_tokens)


def validation_labels(snapshot: Snapshot) -> Ints | None:
    """The class of each validation row [n], told by its loss and its logits; ``None`` without."""
    if snapshot.valid_logits is None or np.ndim(snapshot.valid_logits) != 2:
        return None
    return recover_labels(np.asarray(snapshot.valid_logits), snapshot.valid_losses)


def stacked_hits(columns: Sequence[Bools | None]) -> Bools | None:
    """Which rows were right at each look [n, snapshots]; ``None`` unless every look tells."""
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if len(known) == len(columns) and known else None


def beats_chance(answers: Ints, losses: Floats, labels: Ints) -> bool:
    """Whether the classes ``answers`` [n], which cost ``losses`` [n], are better, beyond chance,
    than knowing nothing but how often each class occurs among ``labels`` [n]: by a paired t
    interval of the losses against −log(share of the row's class), by Newcombe's interval of the
    right answers against always giving the commonest class, or because they ``follow_labels``."""
    shares = np.bincount(labels) / len(labels)
    surer = paired_t(losses, -np.log(shares[labels])).high < 0
    right = newcombe(answers == labels, labels == int(shares.argmax()))[0] > 0
    return surer or right or follow_labels(answers, labels)


def follow_labels(answers: Ints, labels: Ints) -> bool:
    """Whether some class is answered significantly more often for its own rows than for others
    (Fisher's exact test a class, Holm, 5 %). It is so of a model that was trained on balanced
    classes and is asked where one is rare: by its loss, and by how many answers are right, always
    giving the common class is better."""
    p_values = []
    for one in np.unique(labels):
        own = labels == one
        given = answers == one
        hits = int(given[own].sum())
        others = int(given.sum()) - hits
        p_values.append(fisher_above(hits, int(own.sum()), others, int((~own).sum())))
    return bool(p_values) and float(holm(np.array(p_values)).min()) < LEVEL
