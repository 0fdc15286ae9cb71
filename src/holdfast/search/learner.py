"""What all searches share: an engine for their fits (sequential here, or parallel on a Ray
cluster), a final fit with the chosen settings into the run's folder, and the plan of ``--dry-run``.

The test rows are scored once, by the saved model, as in any run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from holdfast.contract.fit import FittedModel
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.fits.cross_fitting import resumable
from holdfast.fits.row_use import learning_rows
from holdfast.pipeline.main import with_absolute_paths
from holdfast.plan.control import without_trials
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
    """Runs jobs. The same jobs give the same results on every engine."""

    is_parallel: ClassVar[bool]

    def run(
        self,
        context: SearchContext,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[FitResult]:
        """The jobs' results as they finish. The next job is requested only when a worker is free,
        so that a search can choose it by earlier results. Jobs in the ``store`` are not repeated.
        The log receives what happens to fits, not the decisions inside each."""
        ...


def make_engine(name: str, address: str | None = None) -> FitEngine:
    """The engine of this name; ``address`` is that of a Ray cluster.

    Raises ``RecipeError`` for an unknown name or an address that does not fit it, ``MachineError``
    if Ray is not installed or cannot be reached.
    """
    if name not in ENGINES:
        known = f"Choose one of: {', '.join(ENGINES)}."
        raise RecipeError("--engine", "is not a known engine", name, known)
    if name == "local":
        if address is not None:
            rule = "is that of a Ray cluster, but the engine is local"
            raise RecipeError("--address", rule, address, "Add --engine ray, or remove it.")
        return LocalEngine()
    from holdfast.search.on_ray import RayFitEngine

    return RayFitEngine.connect(address)


class LocalEngine:
    """The local engine: each fit uses all threads of the machine."""

    is_parallel: ClassVar[bool] = False

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
    """Runs the fits of a search; finished ones are not repeated."""

    def __call__(
        self, jobs: Iterator[FitJob], watch: FitWatch | None = None
    ) -> Iterator[FitResult]: ...


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """The result of a search: the ``settings`` of the saved model, its ``decisions``, and its
    ``blocks`` of ``result.json``."""

    settings: Mapping[str, Any]
    decisions: tuple[Decision, ...]
    blocks: Mapping[str, Any]


class Search(Protocol):
    """What is specific to one kind of search."""

    def run(self, context: SearchContext, fits: JobRunner, checkpoints: Path) -> SearchOutcome:
        """Request fits until enough is known; ``checkpoints`` is the run's ``checkpoints``."""
        ...

    def plan(self, context: SearchContext) -> Mapping[str, Any]:
        """What would be tried, in plain values."""
        ...


class PlanningLearner(Learner, Protocol):
    """A learner that can describe its plan."""

    def plan(self) -> Mapping[str, Any]:
        """The plan for its rows, as plain values."""
        ...


class SearchProcedure(Procedure, Protocol):
    """A procedure that has a plan."""

    def learn(self, recipe: Recipe, divided: Divided) -> PlanningLearner: ...


class SearchLearner:
    """The learner of every search: its fits, then one fit with the chosen settings."""

    def __init__(self, recipe: Recipe, divided: Divided, engine: FitEngine, search: Search) -> None:
        if recipe.train.folds is None:
            # Its many fits set validation rows aside, unless asked: folds would triple their time.
            recipe = recipe.with_changes(train={"folds": 0})
        because = "a search compares settings, which a change during a run would replace"
        recipe, policy_decisions = without_trials(recipe, because)
        notify(*policy_decisions)
        divided = replace(divided, decisions=(*divided.decisions, *policy_decisions))
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
    """Raise ``RecipeError`` if no test rows are set aside."""
    if not recipe.data.split.test and recipe.data.test is None:
        rule = "is 0, but a search needs test rows to score the chosen model"
        raise RecipeError("data.split.test", rule, 0, "Set it above 0, or give --test.")
