"""Which settings come next, and which trials end early: by Optuna's samplers and pruners, by the
verdict, and by the clock.

Each trial has a sampler of its own, seeded by the search's seed and the trial's number, so that a
search that is continued proposes what it would have proposed.

For a pruner a look's place on the way is the share of its rows that a trial has passed, in
hundredths of the rows that the default passes: trials of several lengths and batches meet there.
The start of a trial, and the first trial of all, are never ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.core.records import Decision, Snapshot
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import counted
from holdfast.monitor.evidence import raw_losses
from holdfast.monitor.judge import judge
from holdfast.search.rules.shrinkage import probabilities
from holdfast.search.space import Space
from holdfast.search.storage import calm

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


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


# Verdicts after which nothing good comes.
HOPELESS = ("diverging",)
# The first rung, in hundredths of the default's rows, and the factor between rungs.
FIRST_RUNG, FACTOR = 25, 3
# Looks that a verdict needs.
LEAST_LOOKS = 3


def choose_pruner(asked: str, folds: int) -> Decision:
    """The pruner, with its reason."""
    if asked != "auto":
        return Decision("pruner", asked, "set by you")
    if folds:
        because = "trials are compared row by row after each fold, and one that is behind ends"
        return Decision("pruner", "race", because)
    because = "on few rows a trial that is behind halfway may yet win; one that diverges cannot"
    return Decision("pruner", "verdict", because)


def make_pruner(name: str) -> BasePruner:
    """Optuna's part of it; the others are Holdfast's."""
    import optuna

    with calm():
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
    """The watch of a search: hears every look of every trial.

    ``until`` is the time of the clock (``time.monotonic``) at which trials end, ``rows`` how many
    the default passes. A fold of a trial is watched by its verdict and the clock alone: what half
    the folds have seen is compared when a fold is done.
    """

    def __init__(self, name: str, rows: float = 0.0, until: float | None = None) -> None:
        self.name, self.rows, self._until = name, rows, until
        self._handles: dict[str, Any] = {}
        self._seen: dict[str, list[Snapshot]] = {}
        self._spared: set[str] = set()

    def follow(self, key: str, handle: Trial | None, spared: bool = False) -> None:
        """From now on, looks of the job ``key`` are those of a trial; without a ``handle`` it is
        one fold of it. ``spared``: it ends by itself alone."""
        self._seen[key] = []
        if handle is not None:
            self._handles[key] = handle
        if spared:
            self._spared.add(key)

    def look(self, key: str, look: Snapshot) -> str | None:
        """Why the trial ends now; ``None`` where it goes on."""
        seen = self._seen.setdefault(key, [])
        seen.append(look)
        if key in self._spared or look.step == 0:
            return None
        if self._until is not None and time.monotonic() > self._until:
            return "the search's minutes are over"
        if self.name == "verdict" and len(seen) >= LEAST_LOOKS:
            # What the guard itself would say of these looks, where it means that nothing comes.
            verdict = judge(seen)
            return f"{verdict.label}: {verdict.because}" if verdict.label in HOPELESS else None
        handle = self._handles.get(key)
        if handle is None or self.name not in ("halving", "hyperband") or not self.rows:
            return None
        # On the scale of what the sampler is told: more is better.
        value = float(probabilities(raw_losses([look])[:, 0]).mean())
        at = round(100 * look.examples_seen / self.rows)
        if value != value or at < 1:
            return None
        with calm():
            handle.report(value, at)
            if not handle.should_prune():
                return None
        return f"behind the others after {at} % of the default's rows ({self.name})"
