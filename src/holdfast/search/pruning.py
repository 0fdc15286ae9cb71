"""Ending trials that are behind: Optuna's successive halving and Hyperband, by the verdict, and by
the clock.

A look's place on the way is the share of its rows that a trial has passed, in hundredths of the
rows that the default passes: trials of several lengths and batches meet there. The start of a
trial, and the first trial of all, are never ended.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from holdfast.core.records import Decision, Snapshot
from holdfast.monitor.evidence import raw_losses
from holdfast.monitor.judge import judge
from holdfast.search.rules.shrinkage import probabilities
from holdfast.search.storage import calm

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import Trial

# Verdicts after which nothing good comes.
HOPELESS = ("diverging",)
# The first rung, in hundredths of the default's rows, and the factor between rungs.
FIRST_RUNG, FACTOR = 25, 3
# Looks that a verdict needs.
LEAST_LOOKS = 3


def choose_pruner(asked: str, folds: int, trials: int | None) -> Decision:
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
        if self.name == "verdict":
            # What the guard itself would say of these looks, where it means that nothing comes.
            if len(seen) < LEAST_LOOKS:
                return None
            verdict = judge(seen)
            if verdict.label not in HOPELESS:
                return None
            return f"{verdict.label}: {verdict.because}"
        handle = self._handles.get(key)
        if handle is None or self.name not in ("halving", "hyperband") or not self.rows:
            return None
        return self._behind(handle, look)

    def _behind(self, handle: Trial, look: Snapshot) -> str | None:
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
