"""What copies on both sides of a division cost: by how much a measured accuracy is too good.

A model that learns its training rows by heart answers a row whose copy it was trained on with the
copy's label. Without the copy it would answer as it does on any new row, which a linear probe on
frozen features, fitted on rows that copy none of them, is asked for. Of n rows that are scored, m
with a copy among the training rows, the accuracy is too good by

    Σ p_i · (a_i − r_i) ÷ n,

a_i the share of row i's copies that have its label, r_i whether the probe is right, p_i the chance
that a copy is on the training side. The interval is that of the mean of r (Wilson's score interval,
with copies of one text counted once); where the model does not learn by heart the price is lower.
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
from holdfast.quality.check import with_classes
from holdfast.quality.leaks import Leaks, Price
from holdfast.quality.views import Embedded
from holdfast.stats.intervals import wilson

# Rows that a probe is fitted on, and those on which its penalty is chosen.
FITTED, CHOSEN = 4000, 1000
# Fewer scored copies say nothing of the rest.
LEAST = 5
# Of the usual division: the share of the rows that are learned.
TRAIN_SHARE = 0.7
LEVEL = 0.95


@dataclass(frozen=True)
class Pricing:
    """Prices by the geometry of ``embedded``. ``None`` where rows have no classes, too few copies
    were read by the model, or too few other rows are left to fit a probe on."""

    embedded: Embedded

    def of_leaks(self, gathered: CombinedRows, pairs: Leaks) -> Price | None:
        """The price of rows that stand in the source and in another table, for an accuracy that is
        measured on that whole table."""
        held = self.embedded.others.get(pairs.name)
        if held is None or not with_classes(self.embedded.rows.table):
            return None
        source, other = gathered.tables["source"], gathered.tables[pairs.name]
        places, vectors = _places(held[0], other), held[1]
        labels = other.column("label")
        seen = np.unique(pairs.other)
        seen = seen[(places[seen] >= 0) & (labels[seen] >= 0)]
        own = _places(self.embedded.rows.table, source)
        left = np.setdiff1d(np.flatnonzero(own >= 0), pairs.source)
        if len(seen) < LEAST:
            return None
        # Of each row that rows names, the share of same, by row.
        same = labels[pairs.other] == source.column("label")[pairs.source]
        counts = np.maximum(np.bincount(pairs.other), 1)
        agree = np.asarray(np.bincount(pairs.other, weights=same) / counts)
        right = self._right(own[left], vectors[places[seen]], labels[seen])
        if right is None:
            return None
        rows, leaked = len(other), len(np.unique(pairs.other))
        return _price(right, agree[seen], np.ones(len(seen)), leaked / rows, rows)

    def of_division(self, gathered: CombinedRows, units: Ints) -> Price | None:
        """The price of copies within the source (equal ``units`` [n]) for an accuracy that is
        measured on the rows that a random division sets aside."""
        if not with_classes(self.embedded.rows.table):
            return None
        table = gathered.tables["source"]
        own, labels = _places(self.embedded.rows.table, table), table.column("label")
        _, group, sizes = np.unique(units, return_inverse=True, return_counts=True)
        copied = np.flatnonzero((sizes[group] > 1) & (own >= 0) & (labels >= 0))
        if len(copied) < LEAST:
            return None
        half = generator(self.embedded.seed, "price").random(len(sizes))[group] < 0.5
        single = np.flatnonzero((sizes[group] == 1) & (own >= 0))
        right = np.zeros(len(table), dtype=bool)
        for part in (False, True):
            asked = copied[half[copied] == part]
            taught = np.concatenate([single, copied[half[copied] != part]])
            found = self._right(own[taught], self.embedded.vectors[own[asked]], labels[asked])
            if found is None:
                return None
            right[asked] = found
        # Of each row the share of the others in its group that have its label.
        marked = group.astype(np.int64) * (int(labels.max(initial=0)) + 2) + labels + 1
        _, place, alike = np.unique(marked, return_inverse=True, return_counts=True)
        agree = ((alike[place] - 1) / np.maximum(sizes[group] - 1, 1))[copied]
        chance = 1 - (1 - TRAIN_SHARE) ** (sizes[group[copied]] - 1)
        share = float((sizes[group] > 1).mean())
        return _price(
            right[copied], agree, chance, share, len(table), len(np.unique(group[copied]))
        )

    def _right(self, taught: Ints, vectors: Floats, labels: Ints) -> npt.NDArray[np.bool_] | None:
        """Whether a probe on the rows at ``taught`` (places among the vectors) is right."""
        embedded = self.embedded
        known = taught[embedded.rows.labels[taught] >= 0]
        order = generator(embedded.seed, "price").permutation(known)
        marks = embedded.rows.labels[order]
        if len(np.unique(marks)) < 2 or not len(labels):
            return None if len(labels) else np.zeros(0, dtype=bool)
        classes = len(embedded.rows.table.classes)
        rows = embedded.vectors[order[:FITTED]].astype(np.float64)
        probe = fit_probe(rows[:CHOSEN], marks[:CHOSEN], classes=classes, seed=embedded.seed)
        if len(rows) > CHOSEN:
            probe = fit_probe(rows, marks[:FITTED], classes=classes, seed=embedded.seed, c=probe.c)
        return np.asarray(probe.logits(vectors).argmax(axis=1) == labels)


def _places(part: Table, whole: Table) -> Ints:
    """Where each row of ``whole`` stands in ``part``, −1 where it does not."""
    at = {row: place for place, row in enumerate(part.column("row").tolist())}
    return np.array([at.get(row, -1) for row in whole.column("row").tolist()], dtype=np.int64)


def _price(
    right: npt.NDArray[np.bool_],
    agree: Floats,
    chance: Floats,
    share: float,
    rows: int,
    texts: int | None = None,
) -> Price:
    mean = float(right.mean())
    low, high = wilson(mean * (texts or len(right)), texts or len(right), LEVEL)
    known, scale = float((chance * agree).mean()), float(chance.mean())
    points = [100 * share * (known - scale * rate) for rate in (mean, high, low)]
    # The wrong answers may stand where the chance is least, which the mean of both does not know.
    exact = 100 * share * float((chance * (agree - right)).mean())
    shift = exact - points[0]
    return Price(exact, points[1] + shift, points[2] + shift, round(share * rows), rows)
