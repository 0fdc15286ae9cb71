"""What policies are held against: always the same action, the best by validation, and a table of
verdicts that is chosen on some runs and measured on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forked.menu import CONTINUE, MENU, STOP
from forked.replay import Advise, Forked

# Points that an action must gain over going on, on average less one standard error.
LEAST = 0.0


def always(action: str) -> Advise:
    """The same wherever it is legal."""
    return lambda fork: action if action in fork.outcomes else CONTINUE


def by_validation(fork: Forked) -> str:
    """The course whose kept state the paired test on validation finds better than going on, by the
    lowest loss: what a run that tried everything could do."""
    better = [name for name in fork.outcomes if fork.better(name, CONTINUE)]
    if not better:
        return CONTINUE

    def loss(name: str) -> float:
        return float(fork.run.snapshots[fork.outcomes[name].kept].refined_loss)

    return min(better, key=loss)


def kept_if_better(advise: Advise) -> Advise:
    """The same, undone at the end where the paired test does not find the course better than the
    state that was kept when it began; the run then goes on from there."""

    def advised(fork: Forked) -> str:
        name = advise(fork)
        return name if name == STOP or fork.better(name, STOP) else CONTINUE

    return advised


def seen(fork: Forked) -> str:
    """What a table goes by: the verdict and, where it names one, the cause."""
    verdict = fork.verdicts[-1]
    return f"{verdict.label}: {verdict.cause}" if verdict.cause else verdict.label


def gains(forks: Sequence[Forked]) -> dict[str, dict[str, tuple[float, float, int]]]:
    """By what is seen and action: the mean gain over going on, its standard error, how many."""
    table: dict[str, dict[str, list[float]]] = {}
    for fork in forks:
        for name in (*MENU, STOP):
            if name in fork.outcomes:
                table.setdefault(seen(fork), {}).setdefault(name, []).append(fork.gain(name))
    return {
        what: {
            name: (float(np.mean(found)), _error(found), len(found))
            for name, found in actions.items()
        }
        for what, actions in table.items()
    }


def _error(found: Sequence[float]) -> float:
    if len(found) < 2:
        return float("inf")
    return float(np.std(found, ddof=1) / len(found) ** 0.5)


def table_of(forks: Sequence[Forked]) -> Mapping[str, str]:
    """The action that gains most after what is seen, where it gains beyond its standard error."""
    found = {}
    for what, actions in gains(forks).items():
        sure = {name: mean - error for name, (mean, error, _) in actions.items()}
        best = max(sure, key=lambda name: sure[name])
        if sure[best] > LEAST:
            found[what] = best
    return found


def from_table(table: Mapping[str, str]) -> Advise:
    return lambda fork: always(table.get(seen(fork), CONTINUE))(fork)
