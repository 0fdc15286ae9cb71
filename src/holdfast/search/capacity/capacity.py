"""``holdfast tune --set search=capacity``: is the model larger than the rows need, and the smallest
one that does as well.

    the whole model, then smaller ones ⇄ fits judged row by row → what the rows can tell, and what
    each size costs → one fit of the size that is chosen into the run's folder

Each size is fitted by itself, from the pretrained weights. Top blocks are dropped, which is what
most often shows in the time of an answer; see docs/capacity.md for what was tried beside.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.contract.fit import FittedModel
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, to_json
from holdfast.core.wording import counted
from holdfast.fits.fit import fit
from holdfast.fits.row_roles import LearningRows
from holdfast.fits.row_use import against_dealing, learning_of
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.search.bench import Bench, of_a_fit
from holdfast.search.capacity.block import block_of, sentence, study_of
from holdfast.search.capacity.progress import Trying
from holdfast.search.capacity.sizes import LAYERS, costs_of, sizes_of
from holdfast.search.engines import engine_of
from holdfast.search.search_loop import TrialFold
from holdfast.search.store import FitStore
from holdfast.search.study_block import judged_by
from holdfast.search.trial_plan import folds_of, units_of

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.runs.journal import RunFolder

NAME = "search=capacity"
# So many validation rows judge by themselves; with fewer every row is answered out of fold.
ENOUGH, FOLDS = 1000, 3


@dataclass(frozen=True, slots=True)
class Sizing:
    """What is asked beside the recipe: where the fits are carried out."""

    engine: str = "local"
    address: str | None = None
    name: str = "tune"

    def asked(self, recipe: Recipe) -> Recipe:
        """See ``Procedure.asked``."""
        given = {
            "train.folds": (recipe.train.folds, "divides each fit, as this search does"),
            LAYERS: (recipe.model.layers, "says how many blocks there are, which is asked here"),
        }
        for key, (value, rule) in given.items():
            if value:
                raise RecipeError(key, rule, value, f"Leave it out, or leave {NAME} out.")
        if not recipe.data.split.test and recipe.data.test is None:
            rule = "is 0, and what a search chose is scored by rows that chose nothing"
            raise RecipeError("data.split.test", rule, 0, "Leave it above 0, or give --test.")
        return recipe

    def described(self) -> Mapping[str, Any]:
        """See ``Procedure.described``."""
        return {"search": "capacity", "engine": self.engine}

    def learn(self, recipe: Recipe, divided: Divided) -> Sized:
        """See ``Procedure.learn``."""
        engine_of(self.engine, self.address)
        dealt = against_dealing(recipe, divided) is None
        return Sized(self, learning_of(recipe, divided), dealt)


def make(engine: str, address: str | None) -> Sizing:
    """What ``search: capacity`` names."""
    return Sizing(engine, address)


class Sized:
    """A search under way: the learner of ``search=capacity``; ``dealt``: whether rows may be dealt
    into folds."""

    def __init__(self, asked: Sizing, learning: LearningRows, dealt: bool = True) -> None:
        self._asked, self._learning, self._dealt = asked, learning, dealt
        self.divided = learning.divided
        self._blocks: Mapping[str, Any] = {}

    @property
    def outer(self) -> tuple[Any, ...]:
        """No outer folds: the test rows score the model that is kept."""
        return ()

    def fit(self, into: RunFolder | None, listeners: Sequence[Listener]) -> FittedModel:
        """Fit the sizes, judge them, then fit the one that is chosen on all training rows."""
        assert into is not None
        start, bench = time.perf_counter(), Bench.of(self._learning)
        sizes, folds = sizes_of(bench), self._folds(bench)
        judging = sum(len(fold.valid) for fold in folds)
        few = len(folds) > 1
        how = f"out of fold, in {FOLDS} folds" if few else "by the validation rows"
        told = Decision(
            "sizes",
            ", ".join(size.name for size in sizes),
            f"each is fitted from the pretrained weights, judged {how} ({counted(judging, 'row')})",
            prominent=True,
        )
        notify(told)
        trying = Trying(sizes, folds, units_of(bench, folds))
        engine = engine_of(self._asked.engine, self._asked.address)
        store = FitStore(into.kept_in, bench.mark)
        for done in engine.run(bench, trying.jobs(), store=store):
            trying.take(done)
            key = done.key.rpartition("-f")[0]
            if trying.whole(key):
                notify(_seen(trying, key))
        fitted_sizes = [size for size in sizes if trying.whole(size.key)]
        costs = costs_of(bench, fitted_sizes)
        found = trying.judged()
        said = sentence(found, sizes, costs, trying.by_rights)
        chosen = next(size for size in sizes if size.key == found.chosen)
        kept = Decision("size", chosen.name, said, prominent=True)
        notify(kept)
        block = block_of(found, trying, costs, how, said)
        seconds = round(time.perf_counter() - start, 3)
        study = study_of(found, trying, block)
        self._blocks = to_json({"capacity": {**block, "search_s": seconds}, "study": study})
        settings = dict(chosen.settings)
        own = {key: value for key, value in settings.items() if of_a_fit(key)}
        prepared = bench.extended(settings, bench.train, bench.valid)
        # They were told as they were made.
        quiet = tuple(replace(one, prominent=False) for one in (told, kept))
        prepared = replace(prepared, decisions=(*prepared.decisions, *quiet))
        return fit(prepared, bench.train, bench.valid, own, into=into, listeners=listeners)

    def _folds(self, bench: Bench) -> Sequence[TrialFold]:
        """The fits of a size: folds, where rows may be dealt, until validation rows are enough."""
        few = self._dealt and len(bench.valid) < ENOUGH
        return folds_of(bench, FOLDS if few else 0, bench.recipe.seed)

    def foreseen(self) -> Mapping[str, Any]:
        """See ``Foreseeable.foreseen``."""
        bench = Bench.of(self._learning)
        sizes = [size.name for size in sizes_of(bench)]
        return {"sizes": sizes, "judged_by": judged_by(self._folds(bench))}

    def blocks(self) -> Mapping[str, Any]:
        """See ``Learner.blocks``."""
        return self._blocks


def _seen(trying: Trying, key: str) -> Decision:
    size = next(one for one in trying.sizes if one.key == key)
    seconds = sum(one.seconds for one in trying.done[key].values())
    mean = float(trying.quality(key).mean())
    value = f"accuracy {mean:.3f}" if trying.by_rights else f"loss {-mean:.4f}"
    return Decision(size.name, value, f"{len(trying.folds)} fits, {seconds:.0f} s", prominent=True)
