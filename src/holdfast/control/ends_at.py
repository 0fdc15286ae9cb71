"""The end of a run that other fits have settled before it began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.core.actions import Action, Stop
from holdfast.core.records import Snapshot, Verdict


class EndsAt:
    """The advisor of a run that ends at a look, ``because`` of what others showed. It remembers
    nothing; ``StoppingRule`` is the one that judges."""

    def __init__(self, step: int, because: str) -> None:
        self._step, self._because = step, because

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        return (Stop(self._because),) if history[-1].step >= self._step else ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Nothing was kept."""
