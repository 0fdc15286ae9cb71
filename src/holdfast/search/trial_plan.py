"""The plan of a hyperparameter search: its space, sampler, pruner, stopping rules and the fits of a
trial, each with the reason; and the section ``search:`` of a recipe.

Each trial has its own sampler, seeded by the search's seed and the trial's number, so that a
resumed search proposes the same settings. For a pruner, an evaluation's position is the share of
rows that a trial has passed, in hundredths of the rows that the default passes, so that trials with
different lengths and batch sizes are comparable. The first evaluation of a trial, and the first
trial, are never pruned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Snapshot
from holdfast.core.seeds import derive_seed, generator
from holdfast.core.tasks import DECODER_TASKS, TAGGING_TASKS
from holdfast.core.wording import count_phrase
from holdfast.fits.compose import make_training_plan
from holdfast.monitor.evidence import raw_losses
from holdfast.monitor.judge import judge
from holdfast.recipe.parts import MAX_FOLDS, MAX_MINUTES, Part
from holdfast.search.context import SearchContext, TrialFold, make_trial_folds
from holdfast.search.default_space import SpaceFacts, default_point, default_space
from holdfast.search.rules.shrinkage import probabilities
from holdfast.search.space import Space
from holdfast.search.space_request import parse_space
from holdfast.search.storage import without_experimental_warnings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

# Trials by chance before a model of the space is worth anything; with few trials a third of them.
STARTUP_TRIALS = 8
# Tasks whose rows are scored on as many words as ``model.max_length`` leaves.
CUT_TASKS = (*TAGGING_TASKS, *DECODER_TASKS)
# Below so many trials a model of the space has hardly begun.
MIN_TRIALS_FOR_MODEL = 16
# Keys beyond which a Gaussian process on few trials says nothing.
MAX_KEYS_FOR_GP = 6


def choose_sampler(requested: str, space: Space, trials: int | None) -> Decision:
    """The sampler, with its reason: as requested, or by space and number of trials."""
    if requested != "auto":
        return Decision("sampler", requested, "set in the recipe")
    if space.finite and trials is not None and space.grid_size(trials + 1) <= trials:
        because = f"the space has {count_phrase(space.grid_size(), 'point')}: each is tried once"
        return Decision("sampler", "grid", because)
    if trials is not None and trials < MIN_TRIALS_FOR_MODEL:
        because = (
            f"{count_phrase(trials, 'trial')}: fewer than {MIN_TRIALS_FOR_MODEL} are too few for "
            "a model of the space"
        )
        return Decision("sampler", "random", because)
    numbers = all(one.value_type != "choice" and one.when is None for one in space)
    if numbers and len(space) <= MAX_KEYS_FOR_GP:
        because = f"{count_phrase(len(space), 'number')} without conditions: a Gaussian process"
        return Decision("sampler", "gp", because)
    because = "choices and conditions among the settings: tree-structured Parzen estimator"
    return Decision("sampler", "tpe", because)


def make_sampler(name: str, seed: int, trials: int | None) -> Callable[[int], BaseSampler]:
    """The factory of the sampler of trial n. ``grid`` has its own order, and is random beyond
    it."""
    start = STARTUP_TRIALS if trials is None else max(3, min(STARTUP_TRIALS, trials // 3))

    def make(number: int) -> BaseSampler:
        import optuna

        trial_seed = derive_seed(seed, "trial", number)
        if name == "tpe":
            return optuna.samplers.TPESampler(
                seed=trial_seed, n_startup_trials=start, multivariate=True, group=True
            )
        if name == "gp":
            return optuna.samplers.GPSampler(
                seed=trial_seed, n_startup_trials=start, warn_independent_sampling=False
            )
        return optuna.samplers.RandomSampler(seed=trial_seed)

    return make


# Verdicts after which nothing good comes.
HOPELESS = ("diverging",)
# The first rung, in hundredths of the default's rows, and the factor between rungs.
FIRST_RUNG, FACTOR = 25, 3
# Looks that a verdict needs.
MIN_EVALUATIONS = 3


def choose_pruner(requested: str, folds: int) -> Decision:
    """The pruner, with its reason."""
    if requested != "auto":
        return Decision("pruner", requested, "set in the recipe")
    if folds:
        because = "after each fold, trials are compared row by row, and those behind are stopped"
        return Decision("pruner", "race", because)
    because = "on few rows a trial that is behind may still win; only diverging ones are stopped"
    return Decision("pruner", "verdict", because)


def make_pruner(name: str) -> BasePruner:
    """Optuna's pruner; the other pruners are Holdfast's."""
    import optuna

    with without_experimental_warnings():
        if name == "halving":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=FIRST_RUNG, reduction_factor=FACTOR
            )
        if name == "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=FIRST_RUNG, max_resource=100, reduction_factor=FACTOR
            )
        return optuna.pruners.NopPruner()


class Pruning:
    """The watch of a search: receives every evaluation of every trial.

    ``until`` is the time (``time.monotonic``) at which trials stop, ``rows`` the rows that the
    default passes. A fold of a trial is watched only by its verdict and the time: partly trained
    folds are compared when a fold is finished.
    """

    def __init__(self, name: str, rows: float = 0.0, until: float | None = None) -> None:
        self.name, self.rows, self._until = name, rows, until
        self._handles: dict[str, Any] = {}
        self._snapshots: dict[str, list[Snapshot]] = {}
        self._spared: set[str] = set()

    def follow(self, key: str, handle: Trial | None, spared: bool = False) -> None:
        """From now on, evaluations of the job ``key`` belong to a trial; without a ``handle`` it is
        one fold of it. ``spared``: it is never stopped from outside."""
        self._snapshots[key] = []
        if handle is not None:
            self._handles[key] = handle
        if spared:
            self._spared.add(key)

    def stop_reason(self, key: str, snapshot: Snapshot) -> str | None:
        """Why the trial stops now; ``None`` if it continues."""
        snapshots = self._snapshots.setdefault(key, [])
        snapshots.append(snapshot)
        if key in self._spared or snapshot.step == 0:
            return None
        if self._until is not None and time.monotonic() > self._until:
            return "the search's time limit was reached"
        if self.name == "verdict" and len(snapshots) >= MIN_EVALUATIONS:
            # The guard's own verdict on these evaluations, if it rules out further progress.
            verdict = judge(snapshots)
            return f"{verdict.label}: {verdict.because}" if verdict.label in HOPELESS else None
        handle = self._handles.get(key)
        if handle is None or self.name not in ("halving", "hyperband") or not self.rows:
            return None
        # On the scale of what is reported to the sampler: more is better.
        value = float(probabilities(raw_losses([snapshot])[:, 0]).mean())
        progress = round(100 * snapshot.examples_seen / self.rows)
        if value != value or progress < 1:
            return None
        with without_experimental_warnings():
            handle.report(value, progress)
            if not handle.should_prune():
                return None
        return f"behind the others after {progress} % of the default's rows ({self.name})"


MOST_TRIALS = 100_000
# What ``search: NAME`` names; the search of settings has no name.
NAMED_SEARCHES = ("capacity",)


class SearchPart(Part):
    """The settings of a search.

    ``sampler`` chooses the next configuration, ``pruner`` stops trials that are behind. ``folds``:
    each trial is fitted this many times and scored out of fold (0: on the run's validation rows).
    ``trials`` and ``minutes`` bound the search. ``seed`` defaults to that of the recipe. ``end``:
    the search may stop before its last trial, if another is not worth its cost.
    """

    sampler: Literal["auto", "grid", "random", "tpe", "gp"] = "auto"
    pruner: Literal["auto", "none", "halving", "hyperband", "verdict", "race"] = "auto"
    folds: int = Field(default=0, ge=0, le=MAX_FOLDS)
    trials: int | None = Field(default=None, ge=1, le=MOST_TRIALS)
    minutes: float | None = Field(default=None, gt=0, le=MAX_MINUTES)
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    end: bool = True


def search_part(section: object, overrides: Mapping[str, object]) -> SearchPart | str:
    """The section ``search`` of a recipe with further settings; or the name of another kind of
    search, one of ``NAMED_SEARCHES``. Raises ``RecipeError``."""
    values = dict(overrides)
    name = values.pop("", None)
    section = section if name is None else name
    if isinstance(section, str):
        if section not in NAMED_SEARCHES:
            raise RecipeError(
                "search", "is not a known search", section, suggest_name(section, NAMED_SEARCHES)
            )
        if values:
            rule = f"is {section}, which has no such setting"
            raise RecipeError("search", rule, next(iter(values)), "Remove it.")
        return section
    if section is not None and not isinstance(section, Mapping):
        rule = "is neither a table of settings nor the name of a search"
        raise RecipeError("search", rule, section, "E.g. search: {trials: 8}.")
    try:
        part = SearchPart.model_validate({**(section or {}), **values})
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = list(SearchPart.model_fields)
            raise RecipeError(
                "search", "names an unknown key", key, suggest_name(key, known)
            ) from None
        rule = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        value, remedy = fault.get("input"), "Change it, or remove it to use its default."
        raise RecipeError(f"search.{key}", rule[0].lower() + rule[1:], value, remedy) from None
    if part.folds == 1:
        raise RecipeError("search.folds", "cannot be 1", 1, "Set 0 for no folds, or 2 or more.")
    if part.pruner == "race" and not part.folds:
        rule = "is race, which compares trials fold by fold"
        raise RecipeError("search.pruner", rule, None, "Set search.folds=5 too.")
    return part


# Trials where neither they nor minutes were requested; the search may end before.
DEFAULT_TRIALS = 16


@dataclass(frozen=True, slots=True, eq=False)
class TrialPlan:
    """The plan. ``default`` is the point of the ``space`` that ``train`` would use (``None``:
    outside), which passes ``rows_passed`` rows, and which is tried first; a ``grid`` has nothing
    after it. ``folds`` are the fits of a trial, ``max_trials`` bounds their number. ``decisions``
    are the decisions."""

    space: Space
    default: Mapping[str, Any] | None
    rows_passed: float
    grid: Sequence[Mapping[str, Any]] | None
    folds: Sequence[TrialFold]
    metric: str
    max_trials: int | None
    seed: int
    sampler: Decision
    pruner: Decision
    decisions: tuple[Decision, ...]


def plan_trials(
    ranges: Mapping[str, object], part: SearchPart, context: SearchContext
) -> TrialPlan:
    """Plan the search on these rows, for the requested ranges (none: the default space)."""
    facts, passed = space_facts(context)
    space = parse_space(ranges, context.recipe) if ranges else default_space(facts)
    if facts.default.task in CUT_TASKS and any(one.key == "model.max_length" for one in space):
        rule = "cuts the words that a trial is scored on, but trials must share one score"
        raise RecipeError("search space: model.max_length", rule, None, "Set one value.")
    max_trials = part.trials
    if max_trials is None and part.minutes is None:
        max_trials = DEFAULT_TRIALS
    sampler = choose_sampler(part.sampler, space, max_trials)
    pruner = choose_pruner(part.pruner, part.folds)
    seed = context.recipe.seed if part.seed is None else part.seed
    default = default_point(space, facts.default)
    origin = (
        "set in the recipe" if space.user_defined else "the default for these rows and this model"
    )
    searched = [
        Decision(
            f"searched: {one.key}", str(one), f"{one.because}{f'; {one.when}' if one.when else ''}"
        )
        for one in space
    ]
    return TrialPlan(
        space=space,
        default=default,
        rows_passed=passed,
        grid=shuffled_grid(space, seed) if sampler.chosen == "grid" else None,
        folds=make_trial_folds(context, part.folds, seed),
        metric=study_metric(facts),
        max_trials=max_trials,
        seed=seed,
        sampler=sampler,
        pruner=pruner,
        decisions=(
            Decision("search space", str(space), origin, prominent=True),
            *searched,
            sampler,
            pruner,
        ),
    )


def space_facts(context: SearchContext) -> tuple[SpaceFacts, float]:
    """What determines the default space, and how many rows the default passes."""
    from holdfast.models.layers import count_parameters
    from holdfast.plan.defaults import FINETUNE

    train = context.train
    prepared = context.extended({}, train, train[:0] if context.folds else context.valid)
    training_plan = make_training_plan(
        prepared, train, context.valid, cross_fitted=bool(context.folds)
    )
    network, phases = training_plan.loaded.network, training_plan.plan.phases
    facts = SpaceFacts(
        recipe=context.recipe,
        default=training_plan.recipe,
        parameters=count_parameters(network)[0],
        region=training_plan.usual_rates,
        train_rows=len(training_plan.train),
        layers=sum(layer.name not in ("embeddings", "head") for layer in network.layers()),
        contrast_only=all(phase.name != FINETUNE for phase in phases),
    )
    return facts, float(sum(phase.rows_passed for phase in phases))


def study_metric(facts: SpaceFacts) -> str:
    """The metric of the study: accuracy if a row has one class, else the loss per row, which every
    task has."""
    return "accuracy" if facts.has_head_of_classes else "loss"


def shuffled_grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """All points of the grid in an order whose every prefix is spread over it.

    Raises ``RecipeError`` if there are more points than a search can have trials.
    """
    if space.grid_size(MOST_TRIALS + 1) > MOST_TRIALS:
        remedy = "Give fewer values, or set search.sampler to random or tpe."
        rule = f"is grid, and the grid has more than {MOST_TRIALS:,} points"
        raise RecipeError("search.sampler", rule, str(space), remedy)
    points = list(space.grid())
    return [points[i] for i in generator(seed, "grid").permutation(len(points))]
