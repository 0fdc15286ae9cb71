"""What the procedures of a search share: where its fits are carried out (one after another here, or
many on a Ray cluster), many fits on one context and then one by the settings that they chose into
the run's folder, and the plan that ``--dry-run`` shows.

The test rows are scored once, by the model that is kept, like those of any run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.contract.fit import FittedModel
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.fits.cross_fitting import resumable
from holdfast.fits.row_use import learning_rows
from holdfast.pipeline.main import with_absolute_paths
from holdfast.prepare.rows import Divided, load_and_divide
from holdfast.recipe import Recipe
from holdfast.runs.procedure import Learner, Procedure, ScoresByFolds
from holdfast.search.context import SearchContext, TrialFold, run_job
from holdfast.search.job import FitJob, FitResult, FitStore, FitWatch

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.core.events import Listener
    from holdfast.runs.start import RunFolder

ENGINES = ("local", "ray")


class FitEngine(Protocol):
    """Carries out jobs. The same jobs give the same results, whichever engine does them."""

    def run(
        self,
        context: SearchContext,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[FitResult]:
        """The jobs' results, each as it is there. The next job is requested only when a worker is
        free, so that a search may choose it by what was found so far. What the ``store`` has is
        not done again. The log gets what happens to fits, not what each of them decides."""
        ...


def make_engine(name: str, address: str | None = None) -> FitEngine:
    """The engine of this name; ``address`` is that of a Ray cluster.

    Raises ``RecipeError`` for a name or an address that does not go with it, ``MachineError`` where
    Ray is not installed or cannot be reached.
    """
    if name not in ENGINES:
        raise RecipeError("--engine", "is none", name, f"There are {', '.join(ENGINES)}.")
    if name == "local":
        if address is not None:
            rule = "is that of a Ray cluster, and the engine is local"
            raise RecipeError("--address", rule, address, "Add --engine ray, or leave it out.")
        return LocalEngine()
    from holdfast.search.on_ray import RayEngine

    return RayEngine.connect(address)


class LocalEngine:
    """The engine of a machine of one's own: a fit has all of its threads."""

    def run(
        self,
        context: SearchContext,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[FitResult]:
        """See ``FitEngine.run``."""
        for job in jobs:
            result = store.load(job)
            if result is None:
                with resumable(job.key):
                    result = run_job(context, job, watch)
                store.save(job, result)
            yield result


class JobRunner(Protocol):
    """Carries out the fits of a search, of which none that is finished is repeated."""

    def __call__(
        self, jobs: Iterator[FitJob], watch: FitWatch | None = None
    ) -> Iterator[FitResult]: ...


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What a search came to: the ``settings`` of the model that is kept, what was ``decisions`` on
    the way to it, and the ``blocks`` of ``result.json``."""

    settings: Mapping[str, Any]
    decisions: tuple[Decision, ...]
    blocks: Mapping[str, Any]


class Search(Protocol):
    """What is special to one way to search."""

    def run(self, context: SearchContext, fits: JobRunner, checkpoints: Path) -> SearchOutcome:
        """Ask for fits until enough is known; ``checkpoints`` is the run's ``checkpoints``."""
        ...

    def plan(self, context: SearchContext) -> Mapping[str, Any]:
        """What would be tried, in plain values."""
        ...


class PlanningLearner(Learner, Protocol):
    """A learner that can say what it would do."""

    def plan(self) -> Mapping[str, Any]:
        """In plain values, on the rows that it was made for."""
        ...


class SearchProcedure(Procedure, Protocol):
    """A procedure that has a plan."""

    def learn(self, recipe: Recipe, divided: Divided) -> PlanningLearner: ...


class SearchLearner:
    """The learner of every search: its fits, then one with the settings that it came to."""

    def __init__(self, recipe: Recipe, divided: Divided, engine: FitEngine, search: Search) -> None:
        self._learning, self._splits = learning_rows(recipe, divided), divided.splits
        self._engine, self._search = engine, search
        self.divided = self._learning.divided
        self._blocks: Mapping[str, Any] = {}

    def fit(self, into: RunFolder | None, listeners: Sequence[Listener]) -> FittedModel:
        """See ``Learner.fit``."""
        assert into is not None
        context = SearchContext.from_learning_rows(self._learning)
        store = FitStore(into.checkpoints, context.fingerprint)

        def fits(jobs: Iterator[FitJob], watch: FitWatch | None = None) -> Iterator[FitResult]:
            return self._engine.run(context, jobs, store=store, watch=watch)

        outcome = self._search.run(context, fits, into.checkpoints)
        self._blocks = outcome.blocks
        job = TrialFold(context.train, context.valid).job("kept", outcome.settings)
        return context.fit(job, listeners, into=into, decisions=outcome.decisions)

    def blocks(self) -> Mapping[str, Any]:
        """See ``Learner.blocks``."""
        return self._blocks

    def plan(self) -> Mapping[str, Any]:
        """See ``PlanningLearner.plan``."""
        split_names = ("train", "valid", "test")
        return {
            "rows": self.divided.table.source_rows,
            "division": {name: len(getattr(self._splits, name)) for name in split_names},
            **self._search.plan(SearchContext.from_learning_rows(self._learning)),
        }


def dry_run_plan(procedure: SearchProcedure, recipe: Recipe) -> dict[str, Any]:
    """The plan of ``--dry-run``: nothing is trained or written."""
    scores_by_folds = isinstance(procedure, ScoresByFolds)
    divided = load_and_divide(procedure.checked_recipe(recipe), scores_by_folds=scores_by_folds)
    learner = procedure.learn(with_absolute_paths(divided.recipe, divided.table), divided)
    return {"schema": 1, **learner.plan()}


def require_test_rows(recipe: Recipe) -> None:
    """Raise ``RecipeError`` where no test rows are set aside."""
    if not recipe.data.split.test and recipe.data.test is None:
        rule = "is 0, and what a search chose is scored by rows that chose nothing"
        raise RecipeError("data.split.test", rule, 0, "Leave it above 0, or give --test.")
