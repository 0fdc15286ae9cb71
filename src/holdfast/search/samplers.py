"""Which settings come next: Optuna's samplers, and the choice among them.

Each trial has a sampler of its own, seeded by the search's seed and the trial's number, so that a
search that is continued proposes what it would have proposed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.core.records import Decision
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import counted
from holdfast.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# Trials by chance before a model of the space is worth anything; with few trials a third of them.
START = 8
# Below so many trials a model of the space has hardly begun.
LEAST_FOR_MODEL = 16
# Keys beyond which a Gaussian process on few trials says nothing.
MOST_FOR_GP = 6


def choose_sampler(asked: str, space: Space, trials: int | None) -> Decision:
    """The sampler, with its reason: as it was asked for, or by space and number of trials."""
    if asked != "auto":
        return Decision("sampler", asked, "set by you")
    if space.finite and trials is not None and space.grid_size(trials + 1) <= trials:
        because = f"the space has {counted(space.grid_size(), 'point')}: each is tried once"
        return Decision("sampler", "grid", because)
    if trials is not None and trials < LEAST_FOR_MODEL:
        because = (
            f"{counted(trials, 'trial')}: below {LEAST_FOR_MODEL} a model of the space has "
            "hardly begun"
        )
        return Decision("sampler", "random", because)
    numbers = all(one.kind != "choice" and one.when is None for one in space)
    if numbers and len(space) <= MOST_FOR_GP:
        because = f"{counted(len(space), 'number')} without conditions: a Gaussian process"
        return Decision("sampler", "gp", because)
    because = "choices and conditions among the settings: a tree of Parzen estimators"
    return Decision("sampler", "tpe", because)


def make_sampler(name: str, seed: int, trials: int | None) -> Callable[[int], BaseSampler]:
    """What makes the sampler of trial n. ``grid`` has its own order, and chance beyond it."""
    start = START if trials is None else max(3, min(START, trials // 3))

    def make(number: int) -> BaseSampler:
        import optuna

        own = derive_seed(seed, "trial", number)
        if name == "tpe":
            return optuna.samplers.TPESampler(
                seed=own, n_startup_trials=start, multivariate=True, group=True
            )
        if name == "gp":
            return optuna.samplers.GPSampler(
                seed=own, n_startup_trials=start, warn_independent_sampling=False
            )
        return optuna.samplers.RandomSampler(seed=own)

    return make
