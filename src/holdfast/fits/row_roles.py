"""What a run learns from, by which way, and how it is scored where no row is set aside for that.

With validation rows set aside it is one fit, without them it is cross-fitted. Without test rows
(``data.split.test=0``) all rows make the model. To score it, the whole procedure is done again on
the rows outside each of K outer folds, with every choice (steps, state, temperature, what is added)
made on those rows alone, and what comes out answers the fold. So each row is answered once, by a
model to which it was unknown and for which it chose nothing. What the answers say of the model from
all rows, and how surely, is ``metrics/score.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, OuterAnswers, PreparedData
from holdfast.core.decisions import notify
from holdfast.core.errors import SplitError
from holdfast.core.files import write_atomically
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.seeds import derive_seed
from holdfast.fits.cross_fitting import FOLDER, FORM, cross_fit, probe_logits, resumable, seed_of
from holdfast.fits.fit import fit
from holdfast.prepare.model import with_added
from holdfast.prepare.rows import Divided
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.split.folds import Fold, make_folds, set_aside
from holdfast.tasks.classes.classifier import kept_temperature
from holdfast.training.checkpoint import Unfit, read_sealed, write_sealed

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.fits.job import FitFolder

FOLDS = 5


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
        return with_added(self.bare, train, valid, (), self.divided.tables)


@dataclass(frozen=True, slots=True, eq=False)
class FoldLogits:
    """One outer fold: the calibrated ``logits`` [held, classes] and those of the linear
    ``probe``."""

    held: Ints
    logits: Floats
    probe: Floats


def outer_folds(learning: LearningRows) -> tuple[Fold, ...]:
    """The folds, as positions among all rows. Everything that could be wrong with them shows here,
    before anything is trained.

    Raises ``SplitError`` where a class has too few units to stand in every fold of every fold.
    """
    rows, prepared = learning.everything, learning.prepared
    units, labels = prepared.units[rows], _labels(learning)[rows]
    seed = derive_seed(prepared.recipe.seed, "outer folds")
    names = prepared.rows.classes
    with _named(f"the {FOLDS} outer folds that make the score at data.split.test=0"):
        folds = make_folds(units, labels, FOLDS, seed, names=names)
    for fold in folds:
        with _named(f"the rows of {FOLDS - 1} of the {FOLDS} outer folds (data.split.test=0)"):
            if learning.folds:
                inner = units[fold.train], labels[fold.train]
                make_folds(*inner, learning.folds, seed_of(prepared), names=names)
            else:
                _inner(learning, rows[fold.train])
    return tuple(Fold(rows[f.train], rows[f.held], f.number) for f in folds)


@contextlib.contextmanager
def _named(division: str) -> Iterator[None]:
    """What could not be divided, where nobody has asked for a division in so many words."""
    try:
        yield
    except SplitError as error:
        rule = f"{error.rule}, in {division}"
        remedy = f"{error.remedy} Or leave data.split.test out: test rows are then set aside."
        raise SplitError(error.what, rule, error.value, remedy) from error


def answer_outer(
    learning: LearningRows, folds: Sequence[Fold], recipe: ResolvedRecipe, kept_in: Path, mark: str
) -> OuterAnswers:
    """Fit each outer fold's other rows and let that answer the fold, by the ``recipe`` of the run
    on all rows: an open one would be worked out anew, and a resumed run has none. What was finished
    before the run was killed is read from ``kept_in``; ``mark`` says of which run it must be.
    """
    rows, prepared = learning.everything, learning.prepared
    classes, labels = len(prepared.rows.classes), _labels(learning)
    logits, probe, majority = (np.full((len(rows), classes), np.nan) for _ in range(3))
    for fold in folds:
        path = kept_in / FOLDER / f"outer-{fold.number}.pt"
        own = hashlib.sha256(f"{mark} outer {fold.number}".encode()).hexdigest()
        found = _load(path, own)
        if found is None:
            start = time.perf_counter()
            with resumable(f"outer fold {fold.number + 1}"):
                found = _answer(learning, fold, recipe)
            _save(path, own, found)
            seconds = time.perf_counter() - start
            right = float((found.logits.argmax(axis=1) == labels[fold.held]).mean())
            because = (
                f"{len(fold.train)} other rows made a model anew, in {seconds:.0f} s; of these "
                f"{len(fold.held)} rows, which chose nothing of it, it answers {right:.1%} rightly"
            )
            what = f"outer fold {fold.number + 1} of {len(folds)}"
            notify(Decision(what, "scored", because, prominent=True))
        at = np.searchsorted(rows, found.held)
        logits[at], probe[at] = found.logits, found.probe
        counts = np.bincount(labels[fold.train], minlength=classes).astype(np.float64)
        majority[at] = np.log((counts + 1) / (counts.sum() + classes))
    return OuterAnswers(len(folds), logits, probe, majority)


def _answer(learning: LearningRows, fold: Fold, recipe: ResolvedRecipe) -> FoldLogits:
    fitted = _fit(learning, fold.train, recipe)
    examples = learning.prepared.examples
    # Before the probe, for which the network's memory is used.
    logits = fitted.measure(examples, fold.held)[1] / kept_temperature(fitted)
    return FoldLogits(fold.held, logits, probe_logits(fitted, examples, fold.held))


def _fit(learning: LearningRows, rows: Ints, recipe: ResolvedRecipe) -> FittedModel:
    """The run's own procedure, on some of its rows."""

    def extended(train: Ints, valid: Ints) -> PreparedData:
        return replace(learning.extended(train, valid), recipe=recipe)

    if learning.folds:
        return cross_fit(extended(rows, rows[:0]), rows, learning.folds, extend=extended)
    train, valid = _inner(learning, rows)
    return fit(extended(train, valid), train, valid)


def _inner(learning: LearningRows, rows: Ints) -> tuple[Ints, Ints]:
    """Training and validation rows of these, in the shares of the run's own division."""
    prepared = learning.prepared
    share = len(learning.valid) / len(learning.everything)
    seed = derive_seed(prepared.recipe.seed, "inner division")
    labels, names = _labels(learning)[rows], prepared.rows.classes
    train, valid = set_aside(prepared.units[rows], labels, share, seed, names=names)
    return rows[train], rows[valid]


def _labels(learning: LearningRows) -> Ints:
    labels: Ints = np.asarray(learning.prepared.rows.column("label"))
    return labels


def _save(path: Path, mark: str, found: FoldLogits) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: torch.as_tensor(getattr(found, name)) for name in FoldLogits.__slots__}
    write_atomically(path, lambda beside: write_sealed(beside, state, mark, FORM))


def _load(path: Path, mark: str) -> FoldLogits | None:
    if not path.exists():
        return None
    try:
        state = read_sealed(path, mark, FORM)
    except Unfit as error:
        notify(Decision("a finished outer fold", "not used", f"{path.name} {error}"))
        return None
    return FoldLogits(**{name: state[name].numpy() for name in FoldLogits.__slots__})
