"""What a run learns from, and by which way: with validation rows set aside, or cross-fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.core.records import Ints
from holdfast.data.table import Table
from holdfast.fits.cross_fitting import cross_fit
from holdfast.fits.fit import fit
from holdfast.prepare.model import with_added
from holdfast.prepare.rows import Divided
from holdfast.split.folds import Fold

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.fits.place import FitFolder


@dataclass(frozen=True, slots=True)
class LearningRows:
    """What a run learns from: ``train`` and ``valid`` positions among the rows of ``prepared``, or
    all of them in so many ``folds`` (0: none). ``divided`` is the division as it is then used.
    ``names`` is what was asked of the names of classes. ``outer`` are the folds that are scored
    where there are no test rows."""

    prepared: PreparedData
    train: Ints
    valid: Ints
    folds: int
    divided: Divided
    names: Any = None
    outer: tuple[Fold, ...] = ()

    @property
    def everything(self) -> Ints:
        """All rows that are learned from or judge, ascending."""
        return np.union1d(self.train, self.valid)

    def fit(self, into: FitFolder | None = None, listeners: Sequence[Listener] = ()) -> FittedModel:
        """Train, by whichever way was chosen."""
        if not self.folds:
            return fit(self.prepared, self.train, self.valid, into=into, listeners=listeners)
        return cross_fit(
            self.prepared,
            self.train,
            self.folds,
            extend=self.extended,
            into=into,
            listeners=listeners,
        )

    def blocks(self) -> Mapping[str, Any]:
        """One fit has nothing to say beside what every run says."""
        return {}

    @property
    def bare(self) -> PreparedData:
        """What is prepared, without anything that was worked out from training rows."""
        return replace(
            self.prepared,
            recipe=self.prepared.recipe.changed(data={"names": self.names}),
            added=None,
            added_examples=None,
            noticed=(),
            decisions=(),
            synthetic=None,
            lessons=None,
        )

    def extended(self, train: Ints, valid: Ints) -> PreparedData:
        """What is prepared, with the rows that are added to these training rows."""
        return with_added(self.bare, train, valid, (), known_tables(self.divided))


def known_tables(divided: Divided) -> tuple[Table, ...]:
    """All tables of a run, of which no added row may be a copy."""
    return (divided.table, *divided.given)
