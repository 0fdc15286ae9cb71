"""Stop when the criterion has not improved at ``patience`` evaluation points running.

The counter is part of the advisor's state, so it survives a resume (transformers #28544 lost it).
``diverging`` stops at once. With ``patience=None`` nothing else stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.core.actions import Action, Stop
from holdfast.core.records import Snapshot, Verdict


class Patience:
    """The part of ``StoppingRule`` that counts looks and asks nothing about their noise; an advisor
    of its own, too.

    Parameters
    ----------
    patience : evaluation points without improvement after which the run stops, or ``None``.
    criterion : a snapshot to a number, smaller is better.
    start_step : waiting starts after this step, so that a first phase cannot use up the patience.
    """

    def __init__(
        self, patience: int | None, criterion: Callable[[Snapshot], float], start_step: int = 0
    ) -> None:
        self._patience = patience
        self._criterion = criterion
        self._start_step = start_step
        self._best = float("inf")
        self._best_step = 0
        self._waited = 0

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        if verdict.label == "diverging":
            return (Stop(f"the run diverges: {verdict.because}"),)
        return self.count(history)

    def count(self, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        """What the looks alone say, whatever the verdict."""
        snapshot = history[-1]
        value = self._criterion(snapshot)
        if value < self._best:
            self._best, self._best_step, self._waited = value, snapshot.step, 0
        elif snapshot.step > self._start_step:
            self._waited += 1
        if self._patience is not None and self._waited >= self._patience:
            return (Stop(self._reason()),)
        return ()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "best_step": self._best_step, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._best_step = state["best"], state["best_step"]
        self._waited = state["waited"]

    def _reason(self) -> str:
        return (
            f"no improvement of the validation criterion at {self._waited} evaluation points"
            f" running; its lowest was at step {self._best_step}"
        )
