"""A failure of the guard's own never ends somebody else's training.

Every hook of a callback passes through one place. Before the first step wrong use is refused, as an
``InputError``. Whatever else fails, then or later, is told once, and the guard steps aside: it asks
nothing more of the trainer, which goes on with the weights that it has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from holdfast.core.errors import InputError, MachineError
from holdfast.core.input_errors import raises_defects
from holdfast.plugins.trainers.foreign import TheirFailure

if TYPE_CHECKING:
    from holdfast.plugins.trainers.watch import GuardHandle, TrainerRun


class FailsafeCallback:
    """What the guard's callbacks inherit: each of their hooks, found by name, is survived.

    ``SET_UP`` are hooks in which nothing trains yet: all that fails there is raised. ``BEGINS``
    starts a run, in which an ``InputError`` is raised. ``STATE`` is asked for what a checkpoint
    keeps, which is nothing where the guard stepped aside.
    """

    SET_UP: ClassVar[tuple[str, ...]] = ()
    BEGINS: ClassVar[str]
    STATE: ClassVar[str] = "state_dict"

    _guard: GuardHandle
    _watch: TrainerRun | None
    _aside: bool = False

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        for name, hook in list(vars(cls).items()):
            if (name.startswith("on_") and name not in cls.SET_UP) or name == cls.STATE:
                setattr(cls, name, _survived(name, hook))

    def _output(self, *arguments: Any) -> Path:
        """The trainer's folder, by what a hook was called with."""
        raise NotImplementedError


def _survived(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def call(self: FailsafeCallback, *arguments: Any, **named: Any) -> Any:
        nothing: Any = {} if name == self.STATE else None
        if name == self.BEGINS:
            self._watch, self._aside = None, False
        if self._aside:
            return nothing
        # The end of a run forgets its watch before it is done.
        watch = self._watch
        try:
            return hook(self, *arguments, **named)
        except Exception as error:
            # A disk that is full at the beginning is no wrong use.
            full = isinstance(error, MachineError) and isinstance(error.__cause__, OSError)
            refused = isinstance(error, InputError) and not full
            ours = not isinstance(error, (InputError, TheirFailure))
            if (refused and name == self.BEGINS) or (ours and raises_defects()):
                raise
            self._aside = True
            output = functools.partial(self._output, *arguments)
            self._guard.step_aside(name, error, self._watch or watch, output)
            return nothing

    return call
