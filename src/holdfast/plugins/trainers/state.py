"""The guard's state inside a foreign checkpoint's folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from holdfast.core.errors import RunError
from holdfast.core.files import write_atomically
from holdfast.core.input_errors import door
from holdfast.training.checkpoint import Unfit, Unsealed, read_sealed, write_sealed

NAME = "holdfast_guard.pt"
MARK = "guard"
# Its own, so that a checkpoint of another's trainer stays readable when that of our loop changes.
FORMAT = b"holdfast checkpoint 2"


def write_state(checkpoint: Path, step: int, state: dict[str, Any]) -> None:
    """Into the folder of the checkpoint of ``step``, which the trainer has just written."""
    stamped = {"step": step, **state}
    write_atomically(checkpoint / NAME, lambda path: write_sealed(path, stamped, MARK, FORMAT))


def read_state(checkpoint: Path, step: int) -> dict[str, Any]:
    """What ``write_state`` wrote, read without running code.

    Raises ``RunError`` where it is absent, broken or of another step: without it the history, the
    patience and the best state of the run so far would be lost, and nobody would know.
    """
    path = checkpoint / NAME
    if not path.exists():
        raise RunError(
            str(checkpoint),
            "holds no state of the guard, so what it knew would be lost",
            None,
            "Resume from a checkpoint that was written with the guard's callback, train anew, or "
            "resume without the callback.",
        )
    try:
        state = read_sealed(path, MARK, FORMAT)
    except Unsealed:
        import torch

        # An older version wrote it, without a digest.
        with door(str(path), RunError, remedy="Train anew."):
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = {"step": state["step"], **state}
        told = f"{path} has no digest, so whether it is whole was not checked"
        warnings.warn(told, stacklevel=1)
    except Unfit as error:
        raise RunError(str(path), str(error), None, "Train anew.") from error
    if state["step"] != step:
        raise RunError(
            str(path),
            f"is of step {state['step']}, the checkpoint of step {step}",
            None,
            "Resume from a checkpoint whose files belong together.",
        )
    return state
