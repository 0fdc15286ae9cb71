"""The fits by which one size is judged: folds, or the run's own validation rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Ints
from holdfast.search.bench import Bench
from holdfast.split.folds import make_folds


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One fit: the rows that it learns from, and those that judge it, as positions among the
    bench's rows."""

    train: Ints
    valid: Ints


def folds_of(bench: Bench, folds: int) -> tuple[Fold, ...]:
    """So many folds of the training and validation rows, or with 0 the run's own division."""
    if not folds:
        return (Fold(bench.train, bench.valid),)
    everything = np.union1d(bench.train, bench.valid)
    rows, units = bench.rows.take(everything), bench.units[everything]
    named = "label" in rows.rows.column_names
    labels = np.asarray(rows.column("label")) if named else np.zeros(len(rows), dtype=np.int64)
    dealt = make_folds(units, strata(labels, units, folds), folds, bench.recipe.seed)
    return tuple(Fold(everything[one.train], everything[one.held]) for one in dealt)


def strata(labels: Ints, units: Ints, folds: int) -> Ints:
    """What folds hold in proportion: each label of at least so many units by itself, the others
    together; where even these are fewer, with the commonest."""
    owners = {label: len(np.unique(units[labels == label])) for label in np.unique(labels)}
    often = [label for label, count in owners.items() if count >= folds]
    found = np.where(np.isin(labels, often), labels, -1)
    rest = len(np.unique(units[found == -1]))
    if 0 < rest < folds and often:
        found[found == -1] = max(often, key=lambda label: owners[label])
    return np.unique(found, return_inverse=True)[1].astype(np.int64)
