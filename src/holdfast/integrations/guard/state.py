"""The guard's state inside a foreign checkpoint's folder."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from holdfast.core.errors import RunError
from holdfast.core.files import write_atomically

NAME = "holdfast_guard.pt"


def write_state(checkpoint: Path, step: int, state: dict[str, Any]) -> None:
    """Into the folder of the checkpoint of ``step``, which the trainer has just written."""
    held = {"step": step, **state}
    write_atomically(checkpoint / NAME, lambda path: torch.save(held, path))


def read_state(checkpoint: Path, step: int) -> dict[str, Any]:
    """What ``write_state`` wrote, read without running code.

    Raises ``RunError`` where it is absent, broken or of another step: without it the history, the
    patience and the best state of the run so far would be lost, and nobody would know.
    """
    path = checkpoint / NAME
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(
            str(checkpoint), "holds no state of the guard, so what it knew would be lost", None,
            "Resume from a checkpoint that was written with the guard's callback, train anew, or "
            "resume without the callback.",
        ) from None  # fmt: skip
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(str(path), f"cannot be read: {error}", None, "Train anew.") from error
    if state["step"] != step:
        raise RunError(
            str(path), f"is of step {state['step']}, the checkpoint of step {step}", None,
            "Resume from a checkpoint whose files belong together.",
        )  # fmt: skip
    return state
