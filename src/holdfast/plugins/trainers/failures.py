"""Failsafe callbacks: a failure of the guard never ends the user's training.

Every hook of a callback goes through one wrapper. Before the first step, wrong use is refused as an
``InputError``. Any other failure, then or later, is reported once, and the guard disables itself:
it calls the trainer no more, and training continues with its current weights. In several processes,
a failure in the main one disables the guard in all (``processes.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from holdfast.core.errors import InputError, MachineError
from holdfast.core.input_errors import raises_defects
from holdfast.plugins.trainers.foreign import UserCodeError
from holdfast.plugins.trainers.processes import KNOWN_TO_ALL, Follower, OtherProcessError

if TYPE_CHECKING:
    from holdfast.plugins.trainers.watch import GuardHandle, TrainerRun


class FailsafeCallback:
    """Base of the guard's callbacks: an error in one of their hooks, found by name, does not stop
    the training.

    ``SET_UP`` are hooks before training, in which every error is raised. ``BEGINS`` is the hook
    that starts a run, in which an ``InputError`` is raised. ``STATE`` returns the state for a
    checkpoint, which is empty where the guard was disabled.
    """

    SET_UP: ClassVar[tuple[str, ...]] = ()
    BEGINS: ClassVar[str]
    STATE: ClassVar[str] = "state_dict"

    _guard: GuardHandle
    _watch: TrainerRun | None
    # In another process than the main one, which does not speak.
    _follower: Follower | None = None
    _speaks: bool = True
    _disabled: bool = False

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        for name, hook in list(vars(cls).items()):
            if (name.startswith("on_") and name not in cls.SET_UP) or name == cls.STATE:
                setattr(cls, name, _failsafe(name, hook))

    def _output(self, *arguments: Any) -> Path:
        """The trainer's folder, from the arguments of a hook."""
        raise NotImplementedError


def _failsafe(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def call(self: FailsafeCallback, *arguments: Any, **kwargs: Any) -> Any:
        default: Any = {} if name == self.STATE else None
        if name == self.BEGINS:
            self._watch, self._follower, self._disabled = None, None, False
        if self._disabled:
            return default
        # The end of a run clears its watch before it is done.
        watch = self._watch
        try:
            return hook(self, *arguments, **kwargs)
        except Exception as error:
            from_other_process = isinstance(error, OtherProcessError)
            # A full disk at the beginning is not wrong use.
            full = isinstance(error, MachineError) and isinstance(error.__cause__, OSError)
            wrong_use = isinstance(error, InputError) and not full
            is_defect = not (from_other_process or isinstance(error, (InputError, UserCodeError)))
            if (wrong_use and name == self.BEGINS) or (is_defect and raises_defects()):
                raise
            if not self._speaks:
                if not (from_other_process or getattr(error, KNOWN_TO_ALL, False)):
                    # Disabled, it would no longer hear the main process, which would wait for it.
                    raise
                self._disabled = True
                return default
            self._disabled = True
            output = functools.partial(self._output, *arguments)
            self._guard.step_aside(name, error, self._watch or watch, output)
            return default

    return call
