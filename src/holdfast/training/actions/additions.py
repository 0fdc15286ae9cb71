"""What may join the fine-tuning of a run under way: methods, and stronger forms of its rows.

``training`` names no method and no enrichment. Whoever puts a job together says what there is, and
makes the phases with it; the loop knows this protocol alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from holdfast.core.errors import RunError
from holdfast.core.events import Listener
from holdfast.training.plan import Phase

Settings = Mapping[str, Any]


class Additions(Protocol):
    """What can be added to a run's phases; a function of what it is given, without a state."""

    def takes(self, phase: Phase) -> bool:
        """Whether something can be added to this phase."""
        ...

    def settled(self, name: str, given: Settings, on: Mapping[str, Settings]) -> dict[str, Any]:
        """Every setting of the method ``name``, as given or worked out, where the methods ``on``
        have been switched on before. Raises ``RunError`` for one that cannot join this run."""
        ...

    @property
    def notches(self) -> int:
        """How many notches stronger the rows can be enriched than the recipe says."""
        ...

    def added(self, phase: Phase, methods: Mapping[str, Settings], notches: int) -> Phase:
        """The phase with these methods (all their settings) in it, its rows enriched by so many
        notches more."""
        ...

    def listeners(self, name: str, settings: Settings) -> Sequence[Listener]:
        """What of the method must hear the loop, made anew."""
        ...


class NoAdditions:
    """Of a job to which nothing can be added."""

    notches = 0

    def takes(self, phase: Phase) -> bool:
        return False

    def settled(self, name: str, given: Settings, on: Mapping[str, Settings]) -> dict[str, Any]:
        rule = "cannot be applied: nothing was given that could join this run"
        raise RunError("the action SwitchOn", rule, name, "Give its job additions.")

    def added(self, phase: Phase, methods: Mapping[str, Settings], notches: int) -> Phase:
        return phase

    def listeners(self, name: str, settings: Settings) -> Sequence[Listener]:
        return ()


NO_ADDITIONS = NoAdditions()
