"""Which trainer is calling: a ``TrainerCallback`` is told the model and the loaders, but neither
the trainer (its rows, its loss) nor the checkpoint that it resumes from.

Both are local names of the functions that are waiting for the callback to return, and that is
where they are read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import Trainer

from holdfast.core.errors import RunError


def calling_trainer(callback: Any) -> tuple[Any, str | None]:
    """The trainer that called ``callback``, and the checkpoint folder that it resumes from.

    Raises ``RunError`` where no ``transformers.Trainer`` is among the callers.
    """
    trainer, checkpoint = None, None
    for names in _callers():
        owner = names.get("self")
        if isinstance(owner, Trainer) and callback in owner.callback_handler.callbacks:
            trainer = owner
            folder = names.get("resume_from_checkpoint")
            checkpoint = checkpoint or (folder if isinstance(folder, str) else None)
    if trainer is None:
        raise RunError(
            "the guard's callback",
            "was called by something that is no transformers.Trainer",
            None,
            "Put guard.callback() into callbacks=[…] of a Trainer.",
        )
    return trainer, checkpoint


def outer_self(kind: type) -> Any:
    """The innermost caller that is a method of a ``kind``, or ``None``."""
    owners = (names.get("self") for names in _callers())
    return next((owner for owner in owners if isinstance(owner, kind)), None)


def _callers() -> Iterator[Mapping[str, Any]]:
    """The local names of the functions that wait, the innermost first."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back
