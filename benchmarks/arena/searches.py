"""Ways to search, replayed on one draw of validation rows of a recorded table.

Each returns which setting it takes, how many row passes it has spent, and what it says of the
winner where it says something. The default (number 0) is a trial of every search but the plain
ones, which take the best validation accuracy of what they tried, as searches do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arena.space import CHOICES, EPOCHS, RANGE, RATES, of_grid
from arena.table import Drawn, known_settings
from holdfast.search.rules.winner import ExpectedScore, expected_score, select_winner
from holdfast.search.study_verdict import race, stop_reason

# By how much of the score a run under way must be behind.
MARGIN = 0.02
# What a setting that leaves a key open has.
OPEN: dict[str, Any] = {
    "train.learning_rate": 1e-4,
    "train.epochs": 12,
    "train.batch_size": 16,
    "train.weight_decay": 0.01,
    "train.schedule": "linear",
    "train.optimizer": "adamw",
    "train.layer_decay": 1.0,
    "train.label_smoothing": 0.0,
    "train.head": "both",
    "methods.contrast": True,
    "model.pooling": "mean",
    "model.dropout": 0.1,
    "model.freeze": "words",
}


@dataclass(frozen=True, slots=True)
class Found:
    """The setting ``taken``, the row ``passes`` spent, after so many ``trials``; and what is said
    of it beforehand."""

    taken: int
    passes: float
    trials: int
    said: ExpectedScore | None = None


Search = Callable[[Drawn, np.random.Generator], Found]


def by_accuracy(drawn: Drawn, tried: Sequence[int], passes: float | None = None) -> Found:
    """The best validation accuracy of those tried; the first on a tie."""
    scores = drawn.correct[list(tried)].mean(axis=1)
    spent = float(drawn.passes[list(tried)].sum()) if passes is None else passes
    return Found(int(tried[int(scores.argmax())]), spent, len(tried))


def default(drawn: Drawn, rng: np.random.Generator) -> Found:
    """No search."""
    return by_rule(drawn, [0])


def random_search(count: int) -> Search:
    """So many random settings, the best validation accuracy."""
    return lambda drawn, rng: by_accuracy(drawn, rng.permutation(len(drawn.truth))[:count].tolist())


def plain_grid(drawn: Drawn, rng: np.random.Generator) -> Found:
    """Rate × epochs, as many of its points as the table holds, the best validation accuracy."""
    points = [i for i, one in enumerate(known_settings(len(drawn.truth))) if of_grid(one)]
    return by_accuracy(drawn, points)


def by_rule(drawn: Drawn, tried: Sequence[int]) -> Found:
    """The winner of those tried by ``search.rules``, and what it says of it."""
    losses = {str(i): drawn.losses[i] for i in tried}
    correct = {str(i): drawn.correct[i] for i in tried}
    costs = {str(i): float(drawn.passes[i]) for i in tried}
    taken = select_winner(losses, correct, costs, "0").key
    said = expected_score(correct, taken, "0", losses=losses)
    return Found(int(taken), float(drawn.passes[list(tried)].sum()), len(tried), said)


def ours(count: int) -> Search:
    """The default and random settings, so many in all; the winner by ``search.rules``."""

    def search(drawn: Drawn, rng: np.random.Generator) -> Found:
        return by_rule(drawn, [0, *(1 + rng.permutation(len(drawn.truth) - 1)[: count - 1])])

    return search


def ours_ending(drawn: Drawn, rng: np.random.Generator) -> Found:
    """The same until the next trial would not pay for itself."""
    order = [0, *(1 + rng.permutation(len(drawn.truth) - 1))]
    losses: dict[str, Any] = {}
    costs: dict[str, float] = {}
    for place in order:
        losses[str(place)] = drawn.losses[place]
        costs[str(place)] = float(drawn.passes[place])
        if stop_reason(losses, costs, "0") is not None:
            break
    return by_rule(drawn, order[: len(losses)])


def ours_racing(count: int) -> Search:
    """The default and random settings, so many in all, each ended at the first look at which it is
    worse than the best so far was as far on its way; the winner by ``search.rules``."""

    def search(drawn: Drawn, rng: np.random.Generator) -> Found:
        order = [0, *(1 + rng.permutation(len(drawn.truth) - 1)[: count - 1])]
        ended, spent = [0], float(drawn.passes[0])
        for place in order[1:]:
            leader = min(ended, key=lambda i: float(-np.exp(-drawn.losses[i]).mean()))
            best, _, far = drawn.by_look[leader]
            marks = list(zip(far / far[-1], best, strict=True))
            losses, _, passes = drawn.by_look[place]
            for now, done in zip(losses, passes, strict=True):
                share = float(done / passes[-1])
                earlier = [rows for at, rows in marks if at <= share + 1e-9]
                # Whoever is far behind half-way may still catch up.
                if share < 1 and earlier and race(now, earlier[-1], margin=MARGIN):
                    spent += float(done)
                    break
            else:
                spent += float(drawn.passes[place])
                ended.append(int(place))
        found = by_rule(drawn, ended)
        return Found(found.taken, spent, len(order), found.said)

    return search


def tpe(count: int) -> Search:
    """Optuna's TPE on validation accuracy; of what it asks for, the nearest recorded setting that
    was not tried yet. The default is its first trial."""

    def search(drawn: Drawn, rng: np.random.Generator) -> Found:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        places = located(len(drawn.truth))
        sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        left, tried = set(range(len(drawn.truth))), []
        for number in range(min(count, len(left))):
            trial = study.ask(distributions())
            wanted = place_of(trial.params)
            far = np.abs(places - wanted).sum(axis=1)
            place = min(left, key=far.__getitem__) if number else 0
            left.discard(place)
            tried.append(place)
            params = params_of(known_settings(len(places))[place])
            told = optuna.trial.create_trial(
                params=params,
                distributions=distributions(),
                value=float(drawn.correct[place].mean()),
            )
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            study.add_trial(told)
        return by_accuracy(drawn, tried)

    return search


def asha(count: int, factor: int = 3) -> Search:
    """Optuna's pruner of successive halving, asynchronous, by validation accuracy at the looks, one
    trial after the other; of those that came to their end the best."""

    def search(drawn: Drawn, rng: np.random.Generator) -> Found:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
        study = optuna.create_study(direction="maximize", pruner=pruner)
        spent, ended = 0.0, []
        for place in rng.permutation(len(drawn.truth))[:count]:
            trial, (_, right, passes) = study.ask(), drawn.by_look[place]
            scores = right.mean(axis=1)
            for look, score in enumerate(scores, 1):
                trial.report(float(score), look)
                if look < len(scores) and trial.should_prune():
                    spent += float(passes[look - 1])
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                spent += float(passes[-1])
                study.tell(trial, float(drawn.correct[place].mean()))
                ended.append(int(place))
        found = by_accuracy(drawn, ended, spent)
        return Found(found.taken, spent, min(count, len(drawn.truth)))

    return search


@functools.cache
def distributions() -> dict[str, Any]:
    """The space as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    low, high = min(*RANGE, *RATES), max(*RANGE, *RATES)
    return {
        "train.learning_rate": FloatDistribution(low, high, log=True),
        "train.epochs": IntDistribution(2, max(EPOCHS), log=True),
        **{k: CategoricalDistribution(tuple(dict.fromkeys(v))) for k, v in CHOICES.items()},
    }


def params_of(setting: dict[str, Any]) -> dict[str, Any]:
    return {**OPEN, **setting}


def place_of(params: dict[str, Any]) -> Any:
    """Numbers by which settings lie near each other: a factor of 330 in the rate, or of 6 in the
    passes, is as far as three different choices."""
    numbers = [
        3 * math.log(params["train.learning_rate"] / RANGE[0]) / math.log(RANGE[1] / RANGE[0]),
        3 * math.log(params["train.epochs"] / 2) / math.log(6),
    ]
    for name, values in CHOICES.items():
        numbers += [0.5 * (params[name] == value) for value in dict.fromkeys(values)]
    return np.array(numbers)


@functools.cache
def located(count: int) -> Any:
    return np.stack([place_of(params_of(one)) for one in known_settings(count)])


SEARCHES: dict[str, Search] = {
    "default": default,
    "grid": plain_grid,
    **{f"random-{count}": random_search(count) for count in (8, 16, 32, 64)},
    "tpe-16": tpe(16),
    "asha-64": asha(64),
    **{f"ours-{count}": ours(count) for count in (4, 8, 16, 64)},
    "ours-16, racing": ours_racing(16),
    "ours, ending": ours_ending,
}
NEEDS_LOOKS = ("asha-64", "ours-16, racing")
