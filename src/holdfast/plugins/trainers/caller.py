"""Which trainer is calling: a ``TrainerCallback`` is told the model and the loaders, but neither
the trainer (its rows, its loss) nor the checkpoint that it resumes from.

Both are local names of the functions that are waiting for the callback to return, and that is
where they are read.
"""

from __future__ import annotations

import sys
from typing import Any

from transformers import Trainer

from holdfast.core.errors import RunError


def calling_trainer(callback: Any) -> tuple[Any, str | None]:
    """The trainer that called ``callback``, and the checkpoint folder that it resumes from.

    Raises ``RunError`` where no ``transformers.Trainer`` is among the callers.
    """
    frame: Any = sys._getframe(1)
    trainer, checkpoint = None, None
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Trainer) and callback in owner.callback_handler.callbacks:
            trainer = owner
            folder = frame.f_locals.get("resume_from_checkpoint")
            checkpoint = checkpoint or (folder if isinstance(folder, str) else None)
        frame = frame.f_back
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
    frame: Any = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind):
            return owner
        frame = frame.f_back
    return None
