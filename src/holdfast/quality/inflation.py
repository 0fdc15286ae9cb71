"""By how much duplicates across splits inflate a measured accuracy.

A model that memorizes its training rows predicts, for a row with a duplicate in the training set,
the duplicate's label. Without the duplicate it would predict as on any new row. A linear probe on
frozen features, fitted on rows without duplicates among them, estimates that. For n scored rows,
the accuracy is too high by

    Σ p_i · (a_i − r_i) ÷ n,

summed over the rows with duplicates, where a_i is the share of row i's duplicates that have its
label, r_i whether the probe is correct, and p_i the probability that a duplicate is in the training
set. The interval comes from that of the mean of r (Wilson's score interval, with duplicates of one
text counted once). If the model does not memorize, the inflation is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import CombinedRows
from holdfast.models.probes.probe import fit_probe
from holdfast.quality.check import has_classes
from holdfast.quality.leaks import AccuracyInflation, Leaks
from holdfast.quality.views import Embedded
from holdfast.stats.intervals import wilson

# Most rows that a probe is fitted on, and rows on which its penalty is chosen.
MAX_FIT_ROWS, PENALTY_ROWS = 4000, 1000
# Fewer scored duplicates are too few for an estimate.
LEAST = 5
# The share of training rows in the default split.
TRAIN_SHARE = 0.7
LEVEL = 0.95


@dataclass(frozen=True)
class ProbeInflationEstimator:
    """Estimates accuracy inflation from the vectors of ``embedded``. Returns ``None`` if rows have
    no classes, the model has read too few duplicates, or too few other rows remain to fit a
    probe."""

    embedded: Embedded

    def from_leaks(self, all_rows: CombinedRows, pairs: Leaks) -> AccuracyInflation | None:
        """The inflation of an accuracy measured on another table, by rows that are also in the
        source."""
        other_view = self.embedded.others.get(pairs.name)
        if other_view is None or not has_classes(self.embedded.rows.table):
            return None
        source, other = all_rows.tables["source"], all_rows.tables[pairs.name]
        positions, vectors = _positions_in(other_view[0], other), other_view[1]
        labels = other.column("label")
        copied = np.unique(pairs.other)
        copied = copied[(positions[copied] >= 0) & (labels[copied] >= 0)]
        source_positions = _positions_in(self.embedded.rows.table, source)
        uncopied = np.setdiff1d(np.flatnonzero(source_positions >= 0), pairs.source)
        if len(copied) < LEAST:
            return None
        # For each row of the other table, the share of its duplicates with the same label.
        same_label = labels[pairs.other] == source.column("label")[pairs.source]
        counts = np.maximum(np.bincount(pairs.other), 1)
        agreement = np.asarray(np.bincount(pairs.other, weights=same_label) / counts)
        correct = self._right(
            source_positions[uncopied], vectors[positions[copied]], labels[copied]
        )
        if correct is None:
            return None
        rows, leaked = len(other), len(np.unique(pairs.other))
        return _estimate_inflation(
            correct, agreement[copied], np.ones(len(copied)), leaked / rows, rows
        )

    def from_split(self, all_rows: CombinedRows, units: Ints) -> AccuracyInflation | None:
        """The inflation of an accuracy measured on the test set of a random split, by duplicates
        within the source (equal ``units`` [n])."""
        if not has_classes(self.embedded.rows.table):
            return None
        table = all_rows.tables["source"]
        positions, labels = _positions_in(self.embedded.rows.table, table), table.column("label")
        _, group, sizes = np.unique(units, return_inverse=True, return_counts=True)
        copied = np.flatnonzero((sizes[group] > 1) & (positions >= 0) & (labels >= 0))
        if len(copied) < LEAST:
            return None
        first_half = generator(self.embedded.seed, "price").random(len(sizes))[group] < 0.5
        single = np.flatnonzero((sizes[group] == 1) & (positions >= 0))
        correct = np.zeros(len(table), dtype=bool)
        for part in (False, True):
            scored = copied[first_half[copied] == part]
            training = np.concatenate([single, copied[first_half[copied] != part]])
            part_correct = self._right(
                positions[training], self.embedded.vectors[positions[scored]], labels[scored]
            )
            if part_correct is None:
                return None
            correct[scored] = part_correct
        # For each row the share of the others in its group that have its label.
        label_groups = group.astype(np.int64) * (int(labels.max(initial=0)) + 2) + labels + 1
        _, place, label_group_sizes = np.unique(
            label_groups, return_inverse=True, return_counts=True
        )
        agreement = ((label_group_sizes[place] - 1) / np.maximum(sizes[group] - 1, 1))[copied]
        chance = 1 - (1 - TRAIN_SHARE) ** (sizes[group[copied]] - 1)
        share = float((sizes[group] > 1).mean())
        return _estimate_inflation(
            correct[copied], agreement, chance, share, len(table), len(np.unique(group[copied]))
        )

    def _right(self, training: Ints, vectors: Floats, labels: Ints) -> npt.NDArray[np.bool_] | None:
        """Whether a probe on the rows at ``training`` (positions among the vectors) predicts each
        row correctly."""
        embedded = self.embedded
        labelled = training[embedded.rows.labels[training] >= 0]
        order = generator(embedded.seed, "price").permutation(labelled)
        labels_ = embedded.rows.labels[order]
        if len(np.unique(labels_)) < 2 or not len(labels):
            return None if len(labels) else np.zeros(0, dtype=bool)
        classes = len(embedded.rows.table.classes)
        rows = embedded.vectors[order[:MAX_FIT_ROWS]].astype(np.float64)
        probe = fit_probe(
            rows[:PENALTY_ROWS], labels_[:PENALTY_ROWS], classes=classes, seed=embedded.seed
        )
        if len(rows) > PENALTY_ROWS:
            probe = fit_probe(
                rows, labels_[:MAX_FIT_ROWS], classes=classes, seed=embedded.seed, c=probe.c
            )
        return np.asarray(probe.logits(vectors).argmax(axis=1) == labels)


def _positions_in(subset: Table, table: Table) -> Ints:
    """The position of each row of ``table`` in ``subset``, −1 if it is not there."""
    at = {row: place for place, row in enumerate(subset.column("row").tolist())}
    return np.array([at.get(row, -1) for row in table.column("row").tolist()], dtype=np.int64)


def _estimate_inflation(
    correct: npt.NDArray[np.bool_],
    agreement: Floats,
    chance: Floats,
    share: float,
    rows: int,
    texts: int | None = None,
) -> AccuracyInflation:
    mean = float(correct.mean())
    low, high = wilson(mean * (texts or len(correct)), texts or len(correct), LEVEL)
    copy_accuracy, scale = float((chance * agreement).mean()), float(chance.mean())
    points = [100 * share * (copy_accuracy - scale * rate) for rate in (mean, high, low)]
    # The wrong predictions may be where the probability is lowest; the product of means misses
    # that.
    exact = 100 * share * float((chance * (agreement - correct)).mean())
    shift = exact - points[0]
    return AccuracyInflation(exact, points[1] + shift, points[2] + shift, round(share * rows), rows)
