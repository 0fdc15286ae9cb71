"""``holdfast tune``: settings by search, the model that is kept by an ordinary fit.

    space → the default, the portfolio, then a sampler ⇄ fits judged by validation rows → the
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

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.files import write_text
from holdfast.core.records import Decision, Ints
from holdfast.core.wording import counted
from holdfast.pipeline.compose import make_ready
from holdfast.pipeline.cross_fitted import cross_fit
from holdfast.pipeline.fit import fit
from holdfast.pipeline.folder import STUDY
from holdfast.pipeline.learning import Learning
from holdfast.pipeline.procedure import FITS
from holdfast.pipeline.ready import Fitted, Prepared, Ready, classes_of
from holdfast.pipeline.rows import Divided, Notify
from holdfast.pipeline.rows_used import learning_of
from holdfast.recipe import Recipe
from holdfast.search.asked import space_of
from holdfast.search.bench import Bench, of_a_fit
from holdfast.search.engines import Engine, engine_of
from holdfast.search.judged import behind_leader, ends_of, judged
from holdfast.search.pruning import Pruning, choose_pruner, make_pruner
from holdfast.search.samplers import choose_sampler, make_sampler
from holdfast.search.searching import Fold, Searching
from holdfast.search.settings import SearchPart
from holdfast.search.space import Space, shown
from holdfast.search.storage import masked, open_storage
from holdfast.search.store import Store
from holdfast.search.study import Trials
from holdfast.search.told import block
from holdfast.search.usual_space import Facts, default_point, usual_space
from holdfast.split.folds import make_folds

if TYPE_CHECKING:
    from holdfast.pipeline.run_folder import RunFolder

# Trials where neither they nor minutes were asked for; the search may end before.
USUAL_TRIALS = 16
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
        # What is wrong with the space is said before a row is read.
        space_of(self.ranges, recipe)
        return recipe

    def described(self) -> Mapping[str, Any]:
        """See ``Procedure.described``."""
        return {
            "space": dict(self.ranges),
            "search": self.search.model_dump(mode="json"),
            "study": None if self.study is None else masked(self.study),
            "engine": self.engine,
        }

    def learn(self, recipe: Recipe, divided: Divided, notify: Notify) -> Tuning:
        """See ``Procedure.learn``."""
        engine = engine_of(self.engine, self.address)
        return Tuning(self, learning_of(recipe, divided), engine)


class Tuning:
    """A search under way: the learner of ``tune``."""

    def __init__(self, asked: Tune, learning: Learning, engine: Engine) -> None:
        self._asked, self._learning, self._engine = asked, learning, engine
        self.divided = learning.divided
        self._block: Mapping[str, Any] = {}

    def fit(self, into: RunFolder | None, listeners: Sequence[Any], notify: Notify) -> Fitted:
        """Search, then fit by the settings that won."""
        assert into is not None
        start, part = time.perf_counter(), self._asked.search
        bench = Bench.of(self._learning)
        facts, passed = facts_of(bench)
        space = space_of(self._asked.ranges, bench.recipe) if self._asked.ranges else None
        space = space if space is not None else usual_space(facts)
        default = default_point(space, facts.default)
        most = part.trials
        if most is None and part.minutes is None:
            most = USUAL_TRIALS
        sampler = choose_sampler(part.sampler, space, most)
        pruner = choose_pruner(part.pruner, part.folds, most)
        told = (*_space_told(space), sampler, pruner)
        for one in told:
            notify(one)
        seed = bench.recipe.seed if part.seed is None else part.seed
        folds = folds_of(bench, part.folds, seed)
        metric = metric_of(facts)
        where = self._where(into.kept_in)
        trials = Trials(
            open_storage(where),
            where,
            {
                "rows": bench_mark(bench),
                "space": space.to_json(),
                "folds": part.folds,
                "metric": metric,
                "seed": seed,
            },
            owner=_owner(into.kept_in),
            space=space,
            default=default,
            sampler=make_sampler(sampler.chosen, seed, most),
            pruner=make_pruner(pruner.chosen),
            alone=self._asked.study is None,
        )
        until = None if part.minutes is None else time.monotonic() + 60 * part.minutes
        watch = Pruning(pruner.chosen, until)
        watch.rows = passed
        points: list[Any] = [("default", default)]
        points += [("portfolio", one) for one in self._portfolio(facts, space, default)]
        search = Searching(
            trials,
            space,
            folds,
            watch,
            metric,
            notify,
            points=points,
            grid=_grid(space, seed) if sampler.chosen == "grid" else None,
            most=most,
            seconds=None if part.minutes is None else 60 * part.minutes,
            **_rules(part, pruner.chosen),
        )
        if search.tried:
            there = f"{counted(len(search.tried), 'finished trial')}"
            notify(Decision("study", masked(where), f"{there} in it are not repeated", True))
        store = Store(into.kept_in, bench.mark, notify)
        for done in self._engine.run(bench, search.jobs(), store=store, watch=watch):
            search.take(done)
        found = judged(search.tried, metric, len(self.divided.splits.test))
        settings = found.winner.settings
        chosen = Decision("settings", shown(settings), found.because, prominent=True)
        notify(chosen)
        self._block = block(
            search, found, space, bench, masked(where), sampler, pruner, trials.study, seed
        )
        self._block = {**self._block, "search_s": round(time.perf_counter() - start, 3)}
        trials.close()
        if self._asked.study is None:
            shutil.copyfile(where, into.kept_in.parent / STUDY)
        return self._last(bench, settings, (*told, chosen), into, listeners, notify)

    def blocks(self) -> Mapping[str, Any]:
        """See ``Learner.blocks``."""
        return {"study": self._block}

    def _where(self, kept_in: Path) -> str:
        if self._asked.study is not None:
            return self._asked.study
        folder = kept_in / FITS
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / STUDY)

    def _portfolio(
        self, facts: Facts, space: Space, default: Mapping[str, Any] | None
    ) -> list[Mapping[str, Any]]:
        """Settings that have done well elsewhere, as points of this space."""
        if not self._asked.search.portfolio or default is None:
            return []
        return []

    def _last(
        self,
        bench: Bench,
        settings: Mapping[str, Any],
        told: tuple[Decision, ...],
        into: RunFolder,
        listeners: Sequence[Any],
        notify: Notify,
    ) -> Fitted:
        """The fit whose model is kept: that of the trial again, into the run's folder."""
        own = {key: value for key, value in settings.items() if of_a_fit(key)}
        # They were told as they were made.
        told = tuple(replace(one, prominent=False) for one in told)

        def extend(train: Ints, valid: Ints) -> Prepared:
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
                notify=notify,
            )
        prepared = extend(bench.train, bench.valid)
        return fit(
            prepared, bench.train, bench.valid, own, into=into, listeners=listeners, notify=notify
        )


def facts_of(bench: Bench) -> tuple[Facts, float]:
    """What the default space is made by, and how many rows the default passes."""
    train = bench.train
    prepared = bench.extended({}, train, train[:0] if bench.folds else bench.valid)
    ready = make_ready(prepared, train, bench.valid, cross_fitted=bool(bench.folds))
    passed = float(sum(phase.rows_passed for phase in ready.plan.phases))
    return _facts(bench, ready), passed


def _facts(bench: Bench, ready: Ready) -> Facts:
    from holdfast.models.layers import count_parameters
    from holdfast.pipeline.defaults import FINETUNE, size_of

    network = ready.loaded.network
    total, _ = count_parameters(network)
    lengths = np.asarray(ready.train.lengths)
    names = [layer.name for layer in network.layers()]
    return Facts(
        recipe=bench.recipe,
        default=ready.recipe,
        model=ready.loaded.defaults or size_of(total),
        parameters=total,
        region=ready.usual_rates,
        train_rows=len(ready.train),
        valid_rows=len(ready.valid),
        classes=classes_of(ready.prepared),
        layers=sum(name not in ("embeddings", "head") for name in names),
        contrast_only=all(phase.name != FINETUNE for phase in ready.plan.phases),
        length=int(np.median(lengths)) if len(lengths) else 0,
    )


def metric_of(facts: Facts) -> str:
    """What the study is about: the share of right answers where a row has one, else the loss a row,
    which every task has row by row."""
    return "accuracy" if facts.has_head_of_classes else "loss"


def folds_of(bench: Bench, folds: int, seed: int) -> tuple[Fold, ...]:
    """The fits of a trial."""
    if not folds:
        return (Fold(bench.train, bench.valid),)
    everything = np.union1d(bench.train, bench.valid)
    rows, units = bench.rows.take(everything), bench.units[everything]
    named = "label" in rows.rows.column_names
    labels = np.asarray(rows.column("label")) if named else np.zeros(len(rows), dtype=np.int64)
    dealt = make_folds(units, strata(labels, units, folds), folds, seed)
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


def bench_mark(bench: Bench) -> str:
    """Which rows and which recipe a study is of, wherever the files lie and whatever machine it
    is."""
    import hashlib
    import json

    from holdfast.pipeline.begun import MOVABLE, rows_digest

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


def _space_told(space: Space) -> tuple[Decision, ...]:
    whose = "set by you" if space.own else "the default for such rows and such a model"
    lines = [
        Decision(
            f"searched: {one.key}", str(one), f"{one.because}{f'; {one.when}' if one.when else ''}"
        )
        for one in space
    ]
    return (Decision("search space", str(space), whose, prominent=True), *lines)


def _grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """All points of the grid, dealt out, so that any beginning of them is spread over it."""
    from holdfast.core.seeds import generator

    points = list(space.grid())
    return [points[i] for i in generator(seed, "grid").permutation(len(points))]


def _point(
    space: Space, default: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Settings as a whole point of the space; ``None`` where they lie outside it."""
    if any(key not in space.by_key for key in given):
        return None
    chosen: dict[str, Any] = {}
    for one in space:
        if one not in space.active(chosen):
            continue
        value = given.get(one.key, default.get(one.key, one.grid()[0]))
        if not one.holds(value):
            return None
        chosen[one.key] = value
    return chosen


def _rules(part: SearchPart, pruner: str) -> dict[str, Any]:
    """When the search ends before its last trial, and who is dropped between folds."""
    ends = {"ends": ends_of} if part.end else {}
    return {**ends, **({"behind": behind_leader} if pruner == "race" else {})}


def _owner(kept_in: Path) -> str:
    """This run's name among others that share a study."""
    path = kept_in / FITS / OWNER
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, uuid.uuid4().hex)
    return path.read_text("utf-8").strip()
