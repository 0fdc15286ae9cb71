"""What all fits of a search share: the rows, the recipe, and a model from which each begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holdfast.contract.fit import OF_A_FIT, PREPARED_WITH, FittedModel, PreparedData
from holdfast.core.records import Finding, Ints
from holdfast.data.table import Table
from holdfast.fits.cross_fitting import cross_fit
from holdfast.fits.fit import fit
from holdfast.fits.row_roles import LearningRows, known_tables
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare, with_added
from holdfast.recipe import Recipe, as_settings, override
from holdfast.runs.start import rows_digest

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.search.job import FitJob

# Prepared models that are held at once: a search goes back and forth between few forms of one.
HELD = 2


def of_a_fit(key: str) -> bool:
    """Whether a fit may set this for itself; for any other the rows or the model are prepared
    anew."""
    return key.startswith(OF_A_FIT) and key not in PREPARED_WITH


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """The rows and the recipe of a search, from which any number of fits begin.

    ``train`` and ``valid`` are the run's own division, as positions among ``rows``; in ``folds``
    (``train.folds``) each fit is cross-fitted over all of them. ``known`` are all tables of the
    run, of which no added row may be a copy. A bench can be sent to another process, where what it
    has prepared is prepared anew.
    """

    recipe: Recipe
    rows: Table
    units: Ints
    findings: tuple[Finding, ...]
    train: Ints
    valid: Ints
    folds: int
    known: tuple[Table, ...]
    unlabelled: tuple[str, ...]
    _prepared: dict[str, PreparedData] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, learning: LearningRows) -> Bench:
        """That of a run whose rows are prepared."""
        bare = learning.bare
        made = cls(
            bare.recipe,
            bare.rows,
            bare.units,
            bare.findings,
            learning.train,
            learning.valid,
            learning.folds,
            known_tables(learning.divided),
            learning.divided.unlabelled,
        )
        made._prepared[_key({})] = bare
        return made

    @property
    def mark(self) -> str:
        """Which rows and which recipe: a fit of another bench is never taken for one of this."""
        told = f"{rows_digest((self.rows, *self.known))} {self.recipe.to_yaml()}"
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()

    def prepared(self, settings: Mapping[str, object]) -> PreparedData:
        """The rows and the model as these ``settings`` have them, with nothing worked out from
        training rows. Those that a fit sets for itself change nothing here.

        Raises what ``prepare`` raises.
        """
        own = {key: value for key, value in settings.items() if not of_a_fit(key)}
        key = _key(own)
        if key not in self._prepared:
            while len(self._prepared) >= HELD:
                self._prepared.pop(next(iter(self._prepared)))
            recipe = override(self.recipe, as_settings(own))
            made = prepare(recipe, self.rows, units=self.units, findings=self.findings)
            self._prepared[key] = with_general(made, self.known)
        return self._prepared[key]

    def extended(self, settings: Mapping[str, object], train: Ints, valid: Ints) -> PreparedData:
        """The same with the rows that are added to these training rows, worked out from them
        alone."""
        return with_added(self.prepared(settings), train, valid, self.unlabelled, self.known)

    def fit(self, job: FitJob, listeners: Sequence[Listener] = ()) -> FittedModel:
        """One fit of the search, written nowhere."""
        own = {key: value for key, value in job.settings.items() if of_a_fit(key)}
        if self.folds:

            def extend(train: Ints, valid: Ints) -> PreparedData:
                return self.extended(job.settings, train, valid)

            prepared = extend(job.train, job.train[:0])
            return cross_fit(
                prepared, job.train, self.folds, own, extend=extend, listeners=listeners
            )
        prepared = self.extended(job.settings, job.train, job.valid)
        return fit(prepared, job.train, job.valid, own, listeners=listeners)

    def __getstate__(self) -> tuple[Any, ...]:
        # Weights and encoded rows are made anew where the bench arrives.
        bare = replace(self, _prepared={})
        return tuple(getattr(bare, name) for name in type(self).__slots__)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        for name, value in zip(type(self).__slots__, state, strict=True):
            object.__setattr__(self, name, value)


def _key(settings: Mapping[str, object]) -> str:
    return json.dumps(dict(settings), sort_keys=True, default=str)
