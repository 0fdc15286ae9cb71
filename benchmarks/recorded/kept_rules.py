"""Rules that name the checkpoint to keep, on recordings of kept_runs.py, and how they are compared.

A rule sees the validation rows alone. ``LEFT_OUT`` are the rules among which one is chosen on all
sets but one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.control.choice import newest_unless_worse_place
from holdfast.core.records import Floats
from holdfast.stats.paired_tests import paired_t
from holdfast.stats.temperature import best_temperature, cross_fitted_losses, losses_at
from recorded.kept_runs import TRAINERS

DRAWS = 20


@dataclass(frozen=True)
class Recorded:
    """The checkpoints of a run. Of the validation rows: ``calibrated`` and ``raw`` losses [rows,
    checkpoints], ``crossed``, the same as the first at temperatures fitted on other validation
    rows, and ``hits``. Of the test rows, by checkpoint: ``accuracy``; ``saved``, the mean loss of
    what would be saved (with the validation rows' temperature, but of a trainer's without);
    ``refined``, the mean loss at the test rows' own best temperature."""

    cell: Mapping[str, Any]
    calibrated: Floats
    raw: Floats
    crossed: Floats
    hits: Floats
    accuracy: Floats
    saved: Floats
    refined: Floats

    @property
    def recipe(self) -> str:
        return str(self.cell["recipe"])

    @property
    def data(self) -> str:
        return str(self.cell["data"])


Rule = Callable[[Recorded], int]


def read(path: Path) -> tuple[Recorded, dict[str, Any]]:
    """A recording, and what it tells of itself."""
    arrays, told = _arrays(path)
    logits = arrays["valid_logits"], arrays["test_logits"]
    labels = arrays["valid_labels"], arrays["test_labels"]
    return recorded(told["cell"], logits, labels), told


def redrawn(path: Path, count: int | None = None) -> Iterator[Recorded]:
    """A recording ``DRAWS`` times with other validation rows, ``count`` or as many as it had, drawn
    from its test rows: what luck with few rows does to a rule. The test rows are the others."""
    arrays, told = _arrays(path)
    logits, labels = arrays["test_logits"], arrays["test_labels"]
    rows = count or len(arrays["valid_labels"])
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        order = rng.permutation(len(labels))
        seen, rest = order[:rows], order[rows:]
        parts = logits[:, seen], logits[:, rest]
        yield recorded(told["cell"], parts, (labels[seen], labels[rest]))


def recorded(cell: Mapping[str, Any], logits: tuple[Any, Any], labels: tuple[Any, Any]) -> Recorded:
    """The figures of a run, of its validation and test logits [checkpoints, rows, classes]."""
    found: dict[str, list[Any]] = {name: [] for name in Recorded.__dataclass_fields__}
    (marks, answers), folds = labels, np.random.default_rng
    del found["cell"]
    for seen, held in zip(*logits, strict=True):
        found["raw"].append(losses_at(seen, marks, 1.0))
        found["calibrated"].append(losses_at(seen, marks, best_temperature(seen, marks)[0]))
        found["crossed"].append(cross_fitted_losses(seen, marks, seed=folds(0), smoothing=1))
        found["hits"].append((seen.argmax(axis=1) == marks).astype(float))
        found["accuracy"].append(float((held.argmax(axis=1) == answers).mean()))
        own = 1.0 if cell["recipe"] in TRAINERS else best_temperature(seen, marks, smoothing=1)[0]
        found["saved"].append(float(losses_at(held, answers, own).mean()))
        found["refined"].append(best_temperature(held, answers)[1])
    # Rows before checkpoints, as ``monitor.evidence`` has them.
    return Recorded(cell, **{name: np.array(values).T for name, values in found.items()})


def _arrays(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    return arrays, json.loads(str(arrays.pop("told")))


def first(run: Recorded) -> int:
    return 0


def last(run: Recorded) -> int:
    return len(run.accuracy) - 1


def lowest_raw(run: Recorded) -> int:
    return int(run.raw.mean(axis=0).argmin())


def lowest(run: Recorded) -> int:
    return int(run.calibrated.mean(axis=0).argmin())


def lowest_crossed(run: Recorded) -> int:
    return int(run.crossed.mean(axis=0).argmin())


def most_correct(run: Recorded) -> int:
    """The highest accuracy, the lower calibrated loss where it ties."""
    return int(np.lexsort((run.calibrated.mean(axis=0), -run.hits.sum(axis=0)))[0])


def newest(worse: float, better: float | None = None, lost: float | None = None) -> Rule:
    """The newest not worse than the lowest at p < ``worse``; with ``better``, among those better
    than the first at p < ``better``, by their losses or by their answers; with ``lost`` the lowest
    is that of the later ones, which must not be worse than the first at p < ``lost``."""

    def choose(run: Recorded) -> int:
        losses, hits, kept, best = run.calibrated.T, run.hits.T, 0, 0
        means = losses.mean(axis=1)
        for state in range(1, len(means)):
            apart = lost is not None and not best
            best = state if apart or means[state] < means[best] else best
            if above(losses[state], losses[best]) > 1 - worse:
                continue
            if lost is not None and above(losses[state], losses[0]) > 1 - lost:
                continue
            if better is not None and _sure(losses, hits, state) <= 1 - better:
                continue
            kept = state
        return kept

    return choose


def proven_lowest(run: Recorded) -> int:
    """The lowest calibrated loss; but the first unless a later one is better than it at p < 0.1."""
    losses, hits, kept = run.calibrated.T, run.hits.T, 0
    for state in range(1, len(losses)):
        lower = losses[state].mean() < losses[kept].mean()
        if (_sure(losses, hits, state) > 0.9) if not kept else lower:
            kept = state
    return kept


def _sure(losses: Floats, hits: Floats, state: int) -> float:
    return max(above(losses[0], losses[state]), above(hits[state], hits[0]))


def above(high: Floats, low: Floats) -> float:
    """How sure a paired t-test is that ``high`` is above ``low``."""
    if np.ptp(high - low) == 0:
        return float((high - low).mean() > 0)
    return paired_t(high, low).above


def until_now(run: Recorded) -> int:
    """What was kept by 0.1: by plan, whether the first checkpoint was a linear probe that such
    runs leave behind, one that a later checkpoint had to prove better than, or none."""
    if run.recipe in TRAINERS:
        return newest(0.2)(run)
    return newest(0.2, lost=0.02)(run) if run.recipe == "default" else newest(0.2, better=0.1)(run)


def newest_undominated(run: Recorded) -> int:
    """``control.choice.newest_unless_worse``, as the product chooses, but that a probe which only
    guesses may be kept: a recording has no logits."""
    return newest_unless_worse_place(
        run.calibrated, run.hits.sum(axis=0), gains=run.recipe == "default"
    )


def now(run: Recorded) -> int:
    """What is kept now: see ``fits/policies.py``, and ``Guard`` for the trainers."""
    return newest_undominated(run) if run.recipe == "default" else lowest(run)


LOWEST = "lowest calibrated loss"
NEWEST = "newest unless worse, none dominated"
FIXED: dict[str, Rule] = {
    "now": now,
    "until now": until_now,
    NEWEST: newest_undominated,
    LOWEST: lowest,
    "lowest calibrated loss, cross-fitted": lowest_crossed,
    "lowest calibrated loss, proven better than the first": proven_lowest,
    "lowest raw loss": lowest_raw,
    "highest validation accuracy": most_correct,
    "first (step 0)": first,
    "last": last,
}
LEFT_OUT = {name: FIXED[name] for name in (LOWEST, NEWEST)}


def figure(run: Recorded, rule: Rule, what: str) -> float:
    return float(getattr(run, what)[rule(run)])


def left_out(
    runs: Sequence[Recorded], rules: Mapping[str, Rule], what: str
) -> tuple[dict[str, str], list[Rule]]:
    """For each set the rule with the least mean of ``what`` over the *other* sets, each counting
    the same (the first where it ties); and, run by run, the rule that its own set did not
    choose."""
    own = np.array([run.data for run in runs])
    sets = sorted(set(own))
    found = {
        name: np.array([figure(run, rule, what) for run in runs]) for name, rule in rules.items()
    }

    def over_others(name: str, out: str) -> float:
        others = [found[name][own == data].mean() for data in sets if data != out]
        return float(np.mean(others)) if others else 0.0

    chosen = {data: min(rules, key=lambda name: over_others(name, data)) for data in sets}
    return chosen, [rules[chosen[run.data]] for run in runs]
