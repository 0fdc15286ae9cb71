"""``holdfast tune --set search=capacity``: is the model larger than the rows need, and the smallest
one that does as well.

    the whole model, then smaller ones ⇄ fits judged row by row → what the rows can tell, and what
    each size costs → one fit of the size that is chosen into the run's folder

Each size is fitted by itself, from the pretrained weights. Top blocks are dropped, which is what
most often shows in the time of an answer; see docs/capacity.md for what was tried beside.
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
from holdfast.fits.row_use import against_dealing
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.search.bench import Bench, TrialFold, folds_of, judged_by, units_of
from holdfast.search.job import FitJob, FitResult
from holdfast.search.learner import Fits, SearchLearner, SearchOutcome, engine_of, need_test_rows
from holdfast.search.rules.winner import expected_test
from holdfast.search.sizes import (
    LAYERS,
    WHOLE,
    Capacity,
    Cost,
    Size,
    costs_of,
    judge_sizes,
    sentence,
    sizes_of,
)
from holdfast.search.study_block import front

NAME = "search=capacity"
# So many validation rows judge by themselves; with fewer every row is answered out of fold.
ENOUGH, FOLDS = 1000, 3
# Of right answers in points ÷ 100; of losses a share of the whole model's.
MARGIN, SHARE = 0.01, 0.02
# What is known of a size that was fitted, in the order of its line.
MEASURED = (
    *("value", "difference", "verdict", "likely"),
    *("parameters", "trainable", "latency_ms", "speed", "seconds"),
)
WORSE = "a larger one is proven worse"
WELL = "a smaller one is proven to do as well"


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
        need_test_rows(recipe)
        return recipe

    def described(self) -> Mapping[str, Any]:
        """See ``Procedure.described``."""
        return {"search": "capacity", "engine": self.engine}

    def learn(self, recipe: Recipe, divided: Divided) -> SearchLearner:
        """See ``Procedure.learn``."""
        engine = engine_of(self.engine, self.address)
        search = SizeSearch(against_dealing(recipe, divided) is None)
        return SearchLearner(recipe, divided, engine, search)


@dataclass(frozen=True, slots=True)
class SizeSearch:
    """Sizes of a model; ``dealt``: whether rows may be dealt into folds."""

    dealt: bool

    def run(self, bench: Bench, fits: Fits, kept_in: Path) -> SearchOutcome:
        """Fit the sizes, judge them, and choose one; see ``Search.run``."""
        start, sizes, folds = time.perf_counter(), sizes_of(bench), self._folds(bench)
        how = f"out of fold, in {FOLDS} folds" if len(folds) > 1 else "by the validation rows"
        rows = count_phrase(judged_by(folds)["rows"], "row")
        because = f"each is fitted from the pretrained weights, judged {how} ({rows})"
        told = Decision("sizes", ", ".join(size.name for size in sizes), because, prominent=True)
        notify(told)
        trying = SizeTrials(sizes, folds, units_of(bench, folds))
        for done in fits(trying.jobs()):
            trying.take(done)
            key = done.key.rpartition("-f")[0]
            if trying.whole(key):
                notify(trying.score_of(key))
        costs = costs_of(bench, [size for size in sizes if trying.whole(size.key)])
        found = trying.judged()
        said = sentence(found, sizes, costs, trying.by_rights)
        chosen = next(size for size in sizes if size.key == found.chosen)
        kept = Decision("size", chosen.name, said, prominent=True)
        notify(kept)
        block = block_of(found, trying, costs, how, said)
        study = study_of(found, trying, block)
        block["search_s"] = round(time.perf_counter() - start, 3)
        blocks = to_json({"capacity": block, "study": study})
        return SearchOutcome(dict(chosen.settings), (told, kept), blocks)

    def _folds(self, bench: Bench) -> Sequence[TrialFold]:
        """The fits of a size: folds, where rows may be dealt, until validation rows are enough."""
        few = self.dealt and len(bench.valid) < ENOUGH
        return folds_of(bench, FOLDS if few else 0, bench.recipe.seed)

    def foreseen(self, bench: Bench) -> Mapping[str, Any]:
        """See ``Search.foreseen``."""
        sizes = [size.name for size in sizes_of(bench)]
        return {"sizes": sizes, "judged_by": judged_by(self._folds(bench))}


@dataclass(eq=False)
class SizeTrials:
    """The sizes under way: which is fitted next, by what is known, and what came of each."""

    sizes: Sequence[Size]
    folds: Sequence[TrialFold]
    units: Ints | None = None
    done: dict[str, dict[int, FitResult]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def jobs(self) -> Iterator[FitJob]:
        """The fits, each asked for when a worker is free: half of the model after the whole, then
        what lies above it, then what lies below."""
        for size in in_turn(self.sizes):
            because = self._spared(size)
            if because is not None:
                self.skipped[size.key] = because
                continue
            for number, fold in enumerate(self.folds):
                if size.key in self.skipped:
                    break
                yield fold.job(f"{size.key}-f{number}", size.settings, size.key != WHOLE)

    def take(self, done: FitResult) -> None:
        """What came of a fit."""
        key, _, fold = done.key.rpartition("-f")
        if done.failed is not None:
            self.skipped[key] = done.failed
        self.done.setdefault(key, {})[int(fold)] = done

    def whole(self, key: str) -> bool:
        """Whether every fold of a size is done, and none failed."""
        return key not in self.skipped and len(self.done.get(key, {})) == len(self.folds)

    def quality(self, key: str) -> Floats:
        """How good each row's answer is [n], more being better: right or wrong, else less loss."""
        folds = [self.done[key][number] for number in range(len(self.folds))]
        if all(one.correct is not None for one in folds):
            return np.concatenate([np.asarray(one.correct, np.float64) for one in folds])
        return np.concatenate([-one.losses for one in folds])

    @property
    def by_rights(self) -> bool:
        """Whether answers are right or wrong."""
        return all(one.correct is not None for one in self.done[WHOLE].values())

    @property
    def sign(self) -> int:
        """What turns a quality into the metric: accuracy, or the loss."""
        return 1 if self.by_rights else -1

    def seconds(self, key: str) -> float:
        """How long the fits of a size took."""
        return sum(one.seconds for one in self.done[key].values())

    def score_of(self, key: str) -> Decision:
        """What a fitted size scores, as a line."""
        size = next(one for one in self.sizes if one.key == key)
        mean = float(self.quality(key).mean())
        value = f"accuracy {mean:.3f}" if self.by_rights else f"loss {-mean:.4f}"
        took = f"{len(self.folds)} fits, {self.seconds(key):.0f} s"
        return Decision(size.name, value, took, prominent=True)

    def judged(self) -> Capacity:
        """What all rows say of the sizes that were fitted."""
        known = [size for size in self.sizes if size.key != WHOLE and self.whole(size.key)]
        quality = self.quality(WHOLE)
        spread = [size.key for size in known if size.is_spread]
        labels = [str(one.verdict.get("label")) for one in self.done[WHOLE].values()]
        return judge_sizes(
            quality,
            {size.key: self.quality(size.key) for size in known},
            {size.key: float(size.large) for size in known},
            [[size.key for size in known if not size.is_spread], *([key] for key in spread)],
            MARGIN if self.by_rights else SHARE * float(-quality.mean()),
            self.units,
            max(set(labels), key=labels.count),
        )

    def _spared(self, size: Size) -> str | None:
        """Why a size need not be fitted, by what is known of the others."""
        if size.key == WHOLE or not self.whole(WHOLE):
            return None
        sizes = {one.key: one for one in self.sizes}
        for standing in self.judged().standings:
            one, verdict = sizes[standing.key], standing.found.verdict
            # Blocks spread over the depth lose more than as many first ones: they say nothing of
            # those.
            if verdict == "worse" and one.large > size.large and not one.is_spread:
                return WORSE
            if verdict in ("equivalent", "better") and one.large <= size.large:
                return WELL
        return None


def in_turn(sizes: Sequence[Size]) -> list[Size]:
    """The whole, the half (both forms of it), then from the largest down."""
    half = sizes[0].large // 2
    middle = [one for one in sizes if one.large == half]
    return [*sizes[:1], *middle, *(one for one in sizes[1:] if one not in middle)]


def block_of(
    found: Capacity, trying: SizeTrials, costs: Mapping[str, Cost], how: str, said: str
) -> dict[str, Any]:
    """``capacity`` of ``result.json``."""
    lines = [_line(found, trying, costs, size) for size in trying.sizes]
    tried = [line for line in lines if line["tried"]]
    # Whom no other beats in one of quality (the likely difference) and time without losing in the
    # other.
    points = [(-trying.sign * (one["likely"] or 0.0), float(one["latency_ms"])) for one in tried]
    return {
        "answer": found.answer,
        "because": said,
        "chosen": found.chosen,
        "metric": "accuracy" if trying.by_rights else "loss",
        "higher_is_better": trying.by_rights,
        "margin": found.margin,
        "n": found.n,
        "judged": how,
        "pareto": [tried[place]["key"] for place in front(points)],
        "sizes": lines,
    }


def study_of(found: Capacity, trying: SizeTrials, block: Mapping[str, Any]) -> dict[str, Any]:
    """``study`` of ``result.json``, in the form of every search: the sizes are its trials."""
    tried = [line for line in block["sizes"] if line["tried"]]
    scores = {line["key"]: trying.quality(line["key"]) for line in tried}
    expected = expected_test(scores, found.chosen, WHOLE)
    table = [
        {"trial": place, "settings": line["settings"], "seen": line["value"], "size": line["key"]}
        for place, line in enumerate(tried)
    ]
    return {
        "metric": block["metric"],
        "higher_is_better": block["higher_is_better"],
        "trials": len(tried),
        "best": [line["key"] for line in tried].index(found.chosen),
        "expected_test": expected.signed(trying.sign),
        "optimism": expected.optimism,
        "trials_table": table,
    }


def _line(
    found: Capacity, trying: SizeTrials, costs: Mapping[str, Cost], size: Size
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "key": size.key,
        "name": size.name,
        "settings": dict(size.settings),
        "blocks": size.blocks,
        "rank": size.rank,
        "tried": size.key in costs,
        "why": trying.skipped.get(size.key),
        **dict.fromkeys(MEASURED),
    }
    if size.key not in costs:
        return line
    cost, sign = costs[size.key], trying.sign
    line |= {
        "value": sign * float(trying.quality(size.key).mean()),
        "parameters": cost.parameters,
        "trainable": cost.trainable,
        "latency_ms": cost.latency_ms,
        "speed": costs[WHOLE].latency_ms / cost.latency_ms,
        "seconds": trying.seconds(size.key),
    }
    standing = found.of(size.key)
    if standing is not None:
        line |= {
            "difference": standing.found.difference(sign),
            "verdict": standing.found.verdict,
            "likely": sign * standing.likely,
        }
    return line
