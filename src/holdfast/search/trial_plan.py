"""What a search sets out to do: its space, its rules, the fits of a trial; each with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.contract.fit import TrainingPlan, classes_of
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Ints
from holdfast.core.seeds import generator
from holdfast.fits.compose import make_ready
from holdfast.search.bench import Bench
from holdfast.search.pruning import choose_pruner
from holdfast.search.samplers import choose_sampler
from holdfast.search.search_loop import TrialFold
from holdfast.search.settings import MOST_TRIALS, SearchPart
from holdfast.search.space import Space
from holdfast.search.space_request import space_of
from holdfast.search.study import Origin
from holdfast.search.usual_space import SpaceFacts, default_point, usual_space
from holdfast.split.folds import make_folds

# Trials where neither they nor minutes were asked for; the search may end before.
USUAL_TRIALS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """``default`` is the point of the ``space`` that ``train`` would take (``None``: outside), of
    which ``passed`` rows pass. ``points`` come before the sampler's, by their origin; a ``grid``
    has nothing after it. ``folds`` are the fits of a trial, ``most`` trials are made. ``told`` are
    the decisions."""

    space: Space
    default: Mapping[str, Any] | None
    passed: float
    points: Sequence[tuple[Origin, Mapping[str, Any] | None]]
    grid: Sequence[Mapping[str, Any]] | None
    folds: Sequence[TrialFold]
    metric: str
    most: int | None
    seed: int
    sampler: Decision
    pruner: Decision
    told: tuple[Decision, ...]


def planned(ranges: Mapping[str, object], part: SearchPart, bench: Bench) -> Planned:
    """For the ranges that were asked for (none: the default space), on these rows."""
    facts, passed = facts_of(bench)
    space = space_of(ranges, bench.recipe) if ranges else usual_space(facts)
    most = part.trials
    if most is None and part.minutes is None:
        most = USUAL_TRIALS
    sampler = choose_sampler(part.sampler, space, most)
    pruner = choose_pruner(part.pruner, part.folds, most)
    seed = bench.recipe.seed if part.seed is None else part.seed
    default = default_point(space, facts.default)
    return Planned(
        space=space,
        default=default,
        passed=passed,
        points=[("default", default)],
        grid=grid_of(space, seed) if sampler.chosen == "grid" else None,
        folds=folds_of(bench, part.folds, seed),
        metric=metric_of(facts),
        most=most,
        seed=seed,
        sampler=sampler,
        pruner=pruner,
        told=(*_space_told(space), sampler, pruner),
    )


def facts_of(bench: Bench) -> tuple[SpaceFacts, float]:
    """What the default space is made by, and how many rows the default passes."""
    train = bench.train
    prepared = bench.extended({}, train, train[:0] if bench.folds else bench.valid)
    ready = make_ready(prepared, train, bench.valid, cross_fitted=bool(bench.folds))
    passed = float(sum(phase.rows_passed for phase in ready.plan.phases))
    return _facts(bench, ready), passed


def _facts(bench: Bench, ready: TrainingPlan) -> SpaceFacts:
    from holdfast.models.layers import count_parameters
    from holdfast.plan.defaults import FINETUNE, size_of

    network = ready.loaded.network
    total, _ = count_parameters(network)
    lengths = np.asarray(ready.train.lengths)
    names = [layer.name for layer in network.layers()]
    return SpaceFacts(
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


def metric_of(facts: SpaceFacts) -> str:
    """What the study is about: the share of right answers where a row has one, else the loss a row,
    which every task has row by row."""
    return "accuracy" if facts.has_head_of_classes else "loss"


def folds_of(bench: Bench, folds: int, seed: int) -> tuple[TrialFold, ...]:
    """The fits of a trial."""
    if not folds:
        return (TrialFold(bench.train, bench.valid),)
    everything = np.union1d(bench.train, bench.valid)
    rows, units = bench.rows.take(everything), bench.units[everything]
    named = "label" in rows.rows.column_names
    labels = np.asarray(rows.column("label")) if named else np.zeros(len(rows), dtype=np.int64)
    dealt = make_folds(units, strata(labels, units, folds), folds, seed)
    return tuple(TrialFold(everything[one.train], everything[one.held]) for one in dealt)


def units_of(bench: Bench, folds: Sequence[TrialFold]) -> Ints | None:
    """The unit (a group, copies) of each row that judges, fold by fold (cross-fitted, each training
    row does, out of fold); ``None`` where each row is its own."""
    judging = [fold.train if bench.folds else fold.valid for fold in folds]
    units: Ints = bench.units[np.concatenate(judging)]
    return units if len(np.unique(units)) < len(units) else None


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


def _space_told(space: Space) -> tuple[Decision, ...]:
    whose = "set by you" if space.own else "the default for such rows and such a model"
    lines = [
        Decision(
            f"searched: {one.key}", str(one), f"{one.because}{f'; {one.when}' if one.when else ''}"
        )
        for one in space
    ]
    return (Decision("search space", str(space), whose, prominent=True), *lines)


def grid_of(space: Space, seed: int) -> list[dict[str, Any]]:
    """All points of the grid, dealt out, so that any beginning of them is spread over it.

    Raises ``RecipeError`` for more of them than a search can have trials."""
    if space.grid_size(MOST_TRIALS + 1) > MOST_TRIALS:
        remedy = "Give fewer values, or another search.sampler: random, tpe."
        rule = f"is grid, and the grid has more than {MOST_TRIALS:,} points"
        raise RecipeError("search.sampler", rule, str(space), remedy)
    points = list(space.grid())
    return [points[i] for i in generator(seed, "grid").permutation(len(points))]
