"""``holdfast tune``: settings by search, the model that is kept by an ordinary fit.

    space → the default, then a sampler ⇄ fits judged by validation rows → the
    winner, by its scores row by row → one fit with its settings into the run's folder

The test rows are scored once, by the model that is kept, like those of any run.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.contract.run_folder import STUDY
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.files import write_text
from holdfast.core.records import Decision, Ints
from holdfast.core.wording import counted
from holdfast.data.database_url import masked
from holdfast.fits.cross_fitting import cross_fit
from holdfast.fits.fit import fit
from holdfast.fits.row_roles import LearningRows
from holdfast.fits.row_use import against_dealing, learning_of
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.runs.procedure import FITS
from holdfast.search.bench import Bench, of_a_fit
from holdfast.search.engines import FitEngine, engine_of
from holdfast.search.pruning import Pruning, make_pruner
from holdfast.search.samplers import make_sampler
from holdfast.search.search_loop import Searching
from holdfast.search.settings import SearchPart
from holdfast.search.space import shown
from holdfast.search.space_request import space_of
from holdfast.search.storage import check_study, need_optuna, open_storage
from holdfast.search.store import FitStore
from holdfast.search.study import Trials
from holdfast.search.study_block import block, judged_by
from holdfast.search.study_verdict import behind_leader, ends_of, judged
from holdfast.search.trial_plan import Planned, planned, units_of

if TYPE_CHECKING:
    from holdfast.core.events import Listener
    from holdfast.runs.journal import RunFolder

OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Tune:
    """What ``holdfast tune`` is asked beside its recipe: ``ranges`` as they were written, by key;
    ``study`` is a file or URL (``None``: a file in the run's folder)."""

    ranges: Mapping[str, Any] = field(default_factory=dict)
    search: SearchPart = field(default_factory=SearchPart)
    study: str | None = None
    engine: str = "local"
    address: str | None = None
    name: str = "tune"

    def asked(self, recipe: Recipe) -> Recipe:
        """See ``Procedure.asked``."""
        split = recipe.data.split
        if not split.test and recipe.data.test is None:
            raise RecipeError(
                "data.split.test",
                "is 0, and what a search chose is scored by rows that chose nothing",
                0,
                "Leave it above 0, or give --test.",
            )
        if self.search.folds and recipe.train.folds:
            rule = "divides each trial into folds, and train.folds does so too"
            raise RecipeError("search.folds", rule, self.search.folds, "Leave one of them out.")
        # What is missing, or wrong with the space, is said before a row is read.
        need_optuna()
        space_of(self.ranges, recipe)
        if self.study is not None:
            check_study(self.study)
        return recipe

    def described(self) -> Mapping[str, Any]:
        """See ``Procedure.described``."""
        return {
            "space": dict(self.ranges),
            "search": self.search.model_dump(mode="json"),
            "study": None if self.study is None else masked(self.study),
            "engine": self.engine,
        }

    def learn(self, recipe: Recipe, divided: Divided) -> Tuning:
        """See ``Procedure.learn``."""
        engine = engine_of(self.engine, self.address)
        if self.search.folds and (against := against_dealing(recipe, divided)):
            remedy = "Leave it out: validation rows then judge."
            raise RecipeError("search.folds", against, self.search.folds, remedy)
        return Tuning(self, learning_of(recipe, divided), engine)


class Tuning:
    """A search under way: the learner of ``tune``."""

    def __init__(self, asked: Tune, learning: LearningRows, engine: FitEngine) -> None:
        self._asked, self._learning, self._engine = asked, learning, engine
        self.divided = learning.divided
        self._block: Mapping[str, Any] = {}

    def fit(self, into: RunFolder | None, listeners: Sequence[Listener]) -> FittedModel:
        """Search, then fit by the settings that won."""
        assert into is not None
        start, bench = time.perf_counter(), Bench.of(self._learning)
        how = planned(self._asked.ranges, self._asked.search, bench)
        for one in how.told:
            notify(one)
        where, owner = self._where(into.kept_in), _owner(into.kept_in)
        trials = self._trials(bench, how, where, owner)
        # Not before the study is known to be of this search: a refused one leaves no run behind.
        path = into.kept_in / FITS / OWNER
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, owner)
        search, watch = self._searching(how, trials)
        if search.tried:
            there = f"{counted(len(search.tried), 'finished trial')} in it are not repeated"
            notify(Decision("study", masked(where), there, prominent=True))
        store = FitStore(into.kept_in, bench.mark)
        jobs = search.jobs()
        for done in self._engine.run(bench, jobs, store=store, watch=watch):
            search.take(done)
        units = units_of(bench, how.folds)
        found = judged(search.tried, how.metric, len(self.divided.splits.test), units)
        chosen = Decision("settings", shown(found.winner.settings), found.because, prominent=True)
        notify(chosen)
        self._block = block(search, found, how, bench, masked(where))
        self._block = {**self._block, "search_s": round(time.perf_counter() - start, 3)}
        trials.close()
        if self._asked.study is None:
            shutil.copyfile(where, into.kept_in.parent / STUDY)
        told = (*how.told, chosen)
        return self._last(bench, found.winner.settings, told, into, listeners)

    def foreseen(self) -> Mapping[str, Any]:
        """See ``Foreseeable.foreseen``."""
        how = planned(self._asked.ranges, self._asked.search, Bench.of(self._learning))
        return {
            "trials": how.most,
            "minutes": self._asked.search.minutes,
            "judged_by": judged_by(how.folds),
            "sampler": how.sampler.to_json(),
            "pruner": how.pruner.to_json(),
            "space": how.space.to_json(),
        }

    def _trials(self, bench: Bench, how: Planned, where: str, owner: str) -> Trials:
        about = {
            "rows": bench_mark(bench),
            "space": how.space.to_json(),
            "folds": self._asked.search.folds,
            "metric": how.metric,
            "seed": how.seed,
        }
        return Trials(
            open_storage(where),
            where,
            about,
            owner=owner,
            space=how.space,
            default=how.default,
            sampler=make_sampler(how.sampler.chosen, how.seed, how.most),
            pruner=make_pruner(how.pruner.chosen),
            alone=self._asked.study is None,
        )

    def _searching(self, how: Planned, trials: Trials) -> tuple[Searching, Pruning]:
        """The loop and its watch."""
        part = self._asked.search
        seconds = None if part.minutes is None else 60 * part.minutes
        until = None if seconds is None else time.monotonic() + seconds
        watch = Pruning(how.pruner.chosen, how.passed, until)
        # When the search ends before its last trial, and who is dropped between folds.
        ends = {"ends": ends_of} if part.end else {}
        rules: dict[str, Any] = {
            **ends,
            **({"behind": behind_leader} if how.pruner.chosen == "race" else {}),
        }
        search = Searching(
            trials,
            how.space,
            how.folds,
            watch,
            how.metric,
            points=how.points,
            grid=how.grid,
            most=how.most,
            seconds=seconds,
            **rules,
        )
        return search, watch

    def blocks(self) -> Mapping[str, Any]:
        """See ``Learner.blocks``."""
        return {"study": self._block}

    def _where(self, kept_in: Path) -> str:
        if self._asked.study is not None:
            return self._asked.study
        folder = kept_in / FITS
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / STUDY)

    def _last(
        self,
        bench: Bench,
        settings: Mapping[str, object],
        told: tuple[Decision, ...],
        into: RunFolder,
        listeners: Sequence[Listener],
    ) -> FittedModel:
        """The fit whose model is kept: that of the trial again, into the run's folder."""
        own = {key: value for key, value in settings.items() if of_a_fit(key)}
        # They were told as they were made.
        told = tuple(replace(one, prominent=False) for one in told)

        def extend(train: Ints, valid: Ints) -> PreparedData:
            made = bench.extended(settings, train, valid)
            return replace(made, decisions=(*made.decisions, *told))

        if bench.folds:
            return cross_fit(
                extend(bench.train, bench.train[:0]),
                bench.train,
                bench.folds,
                own,
                extend=lambda train, valid: bench.extended(settings, train, valid),
                into=into,
                listeners=listeners,
            )
        prepared = extend(bench.train, bench.valid)
        return fit(prepared, bench.train, bench.valid, own, into=into, listeners=listeners)


def bench_mark(bench: Bench) -> str:
    """Which rows and which recipe a study is of, wherever the files lie and whatever machine it
    is."""
    import hashlib
    import json

    from holdfast.runs.start import MOVABLE, rows_digest

    plain = bench.recipe.model_dump(mode="json")
    for section, names in MOVABLE.items():
        for name in names if names is not None else list(plain[section]):
            plain[section].pop(name, None)
    for name in ("threads", "matmul"):
        plain["train"].pop(name)
    told = json.dumps(plain, sort_keys=True)
    rows = rows_digest((bench.rows, *bench.known))
    sides = f"{bench.train.tolist()} {bench.valid.tolist()}"
    return hashlib.sha256(f"{rows} {sides} {told}".encode()).hexdigest()[:32]


def _owner(kept_in: Path) -> str:
    """This run's name among others that share a study."""
    path = kept_in / FITS / OWNER
    return path.read_text("utf-8").strip() if path.exists() else uuid.uuid4().hex
