"""``holdfast tune --set search=capacity``: whether the model is larger than the rows need, and the
smallest size with equivalent scores.

    the full model, then smaller ones ⇄ fits compared row by row → the verdict on the sizes, and the
    cost of each size → one fit of the chosen size into the run's folder

Each size is fitted separately from the pretrained weights. Top blocks are dropped, which usually
reduces the prediction time most; docs/capacity.md lists what else was tried.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, to_json
from holdfast.core.wording import count_phrase
from holdfast.fits.row_use import dealing_conflict
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.search.context import (
    SearchContext,
    TrialFold,
    judging_counts,
    make_trial_folds,
    units_of,
)
from holdfast.search.default_space import has_one_class
from holdfast.search.job import FitJob, FitResult
from holdfast.search.learner import (
    JobRunner,
    SearchLearner,
    SearchOutcome,
    make_engine,
    require_test_rows,
)
from holdfast.search.rules.winner import expected_score
from holdfast.search.sizes import (
    FULL,
    LAYERS,
    Capacity,
    Cost,
    Size,
    candidate_sizes,
    capacity_sentence,
    judge_sizes,
    measure_costs,
)
from holdfast.search.study_block import pareto_front

NAME = "search=capacity"
# So many validation rows judge by themselves; with fewer every row is answered out of fold.
ENOUGH_ROWS, FOLDS = 1000, 3
# Of accuracy in points ÷ 100; of losses a share of the whole model's.
ACCURACY_MARGIN, LOSS_MARGIN_SHARE = 0.01, 0.02
# What is known of a size that was fitted, in the order of its line.
MEASURED_KEYS = (
    *("value", "difference", "verdict", "likely"),
    *("parameters", "trainable", "latency_ms", "speed", "seconds"),
)
WORSE = "a larger size is shown to be worse"
WELL = "a smaller size is shown to be as good"


@dataclass(frozen=True, slots=True)
class Sizing:
    """The options in addition to the recipe: where the fits run."""

    engine: str = "local"
    address: str | None = None
    name: str = "tune"

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        """See ``Procedure.checked_recipe``."""
        conflicts = {
            # Zero folds are none.
            "train.folds": (
                recipe.train.folds or None,
                "splits each fit into folds, as this search does",
            ),
            LAYERS: (recipe.model.layers, "sets the number of blocks, which this search chooses"),
            "model.static": (
                recipe.model.static or None,
                "has no blocks that this search could leave out",
            ),
        }
        for key, (value, rule) in conflicts.items():
            if value is not None:
                raise RecipeError(key, rule, value, f"Remove it, or remove {NAME}.")
        require_test_rows(recipe)
        return recipe

    def describe(self) -> Mapping[str, Any]:
        """See ``Procedure.describe``."""
        return {"search": "capacity", "engine": self.engine}

    def learn(self, recipe: Recipe, divided: Divided) -> SearchLearner:
        """See ``Procedure.learn``."""
        engine = make_engine(self.engine, self.address)
        search = SizeSearch(dealing_conflict(recipe, divided) is None)
        return SearchLearner(recipe, divided, engine, search)


@dataclass(frozen=True, slots=True)
class SizeSearch:
    """The sizes of a model; ``may_fold``: whether rows may be split into folds."""

    may_fold: bool

    def run(self, context: SearchContext, fits: JobRunner, checkpoints: Path) -> SearchOutcome:
        """Fit the sizes, compare them, and choose one; see ``Search.run``."""
        start, sizes, folds = time.perf_counter(), candidate_sizes(context), self._folds(context)
        judged_on = f"out of fold, in {FOLDS} folds" if len(folds) > 1 else "by the validation rows"
        rows = count_phrase(judging_counts(folds)["rows"], "row")
        reason = f"each is fine-tuned from the pretrained weights; scored {judged_on} ({rows})"
        sizes_decision = Decision(
            "sizes", ", ".join(size.name for size in sizes), reason, prominent=True
        )
        notify(sizes_decision)
        has_accuracy = has_one_class(context.prepared({}).recipe)
        trials = SizeTrials(sizes, folds, units_of(context, folds), has_accuracy)
        for result in fits(trials.jobs()):
            trials.add(result)
            key = result.key.rpartition("-f")[0]
            if trials.is_complete(key):
                notify(trials.score_decision(key))
        costs = measure_costs(context, [size for size in sizes if trials.is_complete(size.key)])
        capacity = trials.judge()
        sentence_text = capacity_sentence(capacity, sizes, costs, trials.has_accuracy)
        selected = next(size for size in sizes if size.key == capacity.selected)
        size_decision = Decision("size", selected.name, sentence_text, prominent=True)
        notify(size_decision)
        block = capacity_block(capacity, trials, costs, judged_on, sentence_text)
        study = capacity_study(capacity, trials, block)
        block["search_s"] = round(time.perf_counter() - start, 3)
        blocks = to_json({"capacity": block, "study": study})
        return SearchOutcome(dict(selected.settings), (sizes_decision, size_decision), blocks)

    def _folds(self, context: SearchContext) -> Sequence[TrialFold]:
        """The fits of a size: folds if rows may be folded and the validation rows are too few, else
        one fit."""
        out_of_fold = self.may_fold and len(context.valid) < ENOUGH_ROWS
        return make_trial_folds(context, FOLDS if out_of_fold else 0, context.recipe.seed)

    def plan(self, context: SearchContext) -> Mapping[str, Any]:
        """See ``Search.plan``."""
        sizes = [size.name for size in candidate_sizes(context)]
        return {"sizes": sizes, "judged_by": judging_counts(self._folds(context))}


@dataclass(eq=False)
class SizeTrials:
    """The sizes in progress: which is fitted next, and the result of each. ``has_accuracy``:
    whether a row has one class; sizes are compared by the loss otherwise."""

    sizes: Sequence[Size]
    folds: Sequence[TrialFold]
    units: Ints | None = None
    has_accuracy: bool = True
    results: dict[str, dict[int, FitResult]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def jobs(self) -> Iterator[FitJob]:
        """The fits, each requested when a worker is free: the full model, half of it, then the
        sizes above the half, then those below."""
        for size in fit_order(self.sizes):
            reason = self._skip_reason(size)
            if reason is not None:
                self.skipped[size.key] = reason
                continue
            for number, fold in enumerate(self.folds):
                if size.key in self.skipped:
                    break
                yield fold.job(f"{size.key}-f{number}", size.settings, size.key != FULL)

    def add(self, result: FitResult) -> None:
        """Record the result of a fit."""
        key, _, fold = result.key.rpartition("-f")
        if result.failed is not None:
            self.skipped[key] = result.failed
        self.results.setdefault(key, {})[int(fold)] = result

    def is_complete(self, key: str) -> bool:
        """Whether every fold of a size is finished, and none failed."""
        return key not in self.skipped and len(self.results.get(key, {})) == len(self.folds)

    def quality(self, key: str) -> Floats:
        """The quality of each row's prediction [n], higher is better: correct or wrong, else the
        negative loss."""
        folds = [self.results[key][number] for number in range(len(self.folds))]
        if self.has_accuracy:
            return np.concatenate([np.asarray(one.correct, np.float64) for one in folds])
        return np.concatenate([-one.losses for one in folds])

    @property
    def sign(self) -> int:
        """The factor from quality to the metric: accuracy, or the loss."""
        return 1 if self.has_accuracy else -1

    def seconds(self, key: str) -> float:
        """How long the fits of a size took."""
        return sum(one.seconds for one in self.results[key].values())

    def score_decision(self, key: str) -> Decision:
        """The score of a fitted size, as a line."""
        size = next(one for one in self.sizes if one.key == key)
        mean = float(self.quality(key).mean())
        value = f"accuracy {mean:.3f}" if self.has_accuracy else f"loss {-mean:.4f}"
        took = f"{len(self.folds)} fits, {self.seconds(key):.0f} s"
        return Decision(size.name, value, took, prominent=True)

    def judge(self) -> Capacity:
        """The verdict of all rows on the fitted sizes."""
        fitted = [size for size in self.sizes if size.key != FULL and self.is_complete(size.key)]
        quality = self.quality(FULL)
        spread = [size.key for size in fitted if size.is_spread]
        labels = [str(one.verdict.get("label")) for one in self.results[FULL].values()]
        return judge_sizes(
            quality,
            {size.key: self.quality(size.key) for size in fitted},
            {size.key: float(size.magnitude) for size in fitted},
            [[size.key for size in fitted if not size.is_spread], *([key] for key in spread)],
            ACCURACY_MARGIN if self.has_accuracy else LOSS_MARGIN_SHARE * float(-quality.mean()),
            self.units,
            max(set(labels), key=labels.count),
        )

    def _skip_reason(self, size: Size) -> str | None:
        """Why a size need not be fitted, given the results of the others."""
        if size.key == FULL or not self.is_complete(FULL):
            return None
        sizes = {one.key: one for one in self.sizes}
        for standing in self.judge().standings:
            one, verdict = sizes[standing.key], standing.paired.verdict
            # Blocks spread over the depth lose more than as many first ones: they say nothing of
            # those.
            if verdict == "worse" and one.magnitude > size.magnitude and not one.is_spread:
                return WORSE
            if verdict in ("equivalent", "better") and one.magnitude <= size.magnitude:
                return WELL
        return None


def fit_order(sizes: Sequence[Size]) -> list[Size]:
    """The full model, the half (both forms of it), then from the largest down."""
    half = sizes[0].magnitude // 2
    halves = [one for one in sizes if one.magnitude == half]
    return [*sizes[:1], *halves, *(one for one in sizes[1:] if one not in halves)]


def capacity_block(
    capacity: Capacity,
    trials: SizeTrials,
    costs: Mapping[str, Cost],
    judged_on: str,
    sentence_text: str,
) -> dict[str, Any]:
    """``capacity`` of ``result.json``."""
    lines = [_line(capacity, trials, costs, size) for size in trials.sizes]
    fitted = [line for line in lines if line["tried"]]
    # Whom no other beats in one of quality (the likely difference) and time without losing in the
    # other.
    points = [(-trials.sign * (one["likely"] or 0.0), float(one["latency_ms"])) for one in fitted]
    return {
        "answer": capacity.answer,
        "because": sentence_text,
        "chosen": capacity.selected,
        "metric": "accuracy" if trials.has_accuracy else "loss",
        "higher_is_better": trials.has_accuracy,
        "margin": capacity.margin,
        "n": capacity.n,
        "judged": judged_on,
        "pareto": [fitted[place]["key"] for place in pareto_front(points)],
        "sizes": lines,
    }


def capacity_study(
    capacity: Capacity, trials: SizeTrials, block: Mapping[str, Any]
) -> dict[str, Any]:
    """``study`` of ``result.json``, in the form of every search: the sizes are its trials."""
    fitted = [line for line in block["sizes"] if line["tried"]]
    scores = {line["key"]: trials.quality(line["key"]) for line in fitted}
    expected = expected_score(scores, capacity.selected, FULL)
    table = [
        {"trial": place, "settings": line["settings"], "seen": line["value"], "size": line["key"]}
        for place, line in enumerate(fitted)
    ]
    return {
        "metric": block["metric"],
        "higher_is_better": block["higher_is_better"],
        "trials": len(fitted),
        "best": [line["key"] for line in fitted].index(capacity.selected),
        "expected_test": expected.signed(trials.sign),
        "optimism": expected.optimism,
        "trials_table": table,
    }


def _line(
    capacity: Capacity, trials: SizeTrials, costs: Mapping[str, Cost], size: Size
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "key": size.key,
        "name": size.name,
        "settings": dict(size.settings),
        "blocks": size.blocks,
        "rank": size.rank,
        "tried": size.key in costs,
        "why": trials.skipped.get(size.key),
        **dict.fromkeys(MEASURED_KEYS),
    }
    if size.key not in costs:
        return line
    cost, sign = costs[size.key], trials.sign
    line |= {
        "value": sign * float(trials.quality(size.key).mean()),
        "parameters": cost.parameters,
        "trainable": cost.trainable,
        "latency_ms": cost.latency_ms,
        "speed": costs[FULL].latency_ms / cost.latency_ms,
        "seconds": trials.seconds(size.key),
    }
    standing = capacity.standing_of(size.key)
    if standing is not None:
        line |= {
            "difference": standing.paired.difference(sign),
            "verdict": standing.paired.verdict,
            "likely": sign * standing.expected_difference,
        }
    return line
