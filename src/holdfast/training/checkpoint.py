"""Checkpoints: written beside, synced, renamed; two are kept; read without running code.

A resumed run is bit-identical whatever the moment of its last checkpoint, so their moments may
come from a clock: often enough to lose little, seldom enough to cost little.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.core.errors import RunError
from holdfast.core.files import write_atomically
from holdfast.core.records import Decision

LEAST_SECONDS = 5.0
COST_SHARE = 0.02
KEPT = 2


class CheckpointStore:
    """The ``checkpoints`` folder of one run.

    ``folder`` may be ``None``: nothing is kept. ``every_s`` is the least time between two; 0 writes
    one after every step. ``tell`` hears when a checkpoint cannot be read and an older one is used.
    """

    def __init__(
        self, folder: Path | None, every_s: float = LEAST_SECONDS,
        tell: Callable[[Decision], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._every_s = every_s
        self._share = COST_SHARE if every_s else float("inf")
        self._tell = tell
        self._last = time.perf_counter()
        self._cost = 0.0

    @property
    def due(self) -> bool:
        """Whether enough time has passed for the next one to cost at most a fiftieth of it."""
        waited = time.perf_counter() - self._last
        return self._folder is not None and waited >= max(self._every_s, self._cost / self._share)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of ``step`` and drop all but the newest two."""
        if self._folder is None:
            return
        start = time.perf_counter()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(step), lambda path: _write(path, state))
        for old in self._all()[:-KEPT]:
            old.unlink(missing_ok=True)
        self._last = time.perf_counter()
        self._cost = self._last - start

    def load(self) -> dict[str, Any] | None:
        """The newest state, or ``None`` when there is none.

        Raises ``RunError`` when checkpoints are there but none can be read.
        """
        paths = self._all()
        unread: list[str] = []
        for path in reversed(paths):
            state = _read(path)
            if state is not None:
                self._say(path, unread)
                return state
            unread.append(path.name)
        if paths:
            raise RunError(
                str(self._folder), "holds no readable checkpoint", [path.name for path in paths],
                "Delete the folder; --resume then starts the run anew.",
            )  # fmt: skip
        return None

    def _say(self, used: Path, unread: list[str]) -> None:
        if unread:
            because = f"{' and '.join(unread)} cannot be read, so the one before is used"
            self._tell(Decision("checkpoint", used.name, because))

    def _path(self, step: int) -> Path:
        assert self._folder is not None
        return self._folder / f"step-{step:08d}.pt"

    def _all(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.pt")) if self._folder else []


def _write(path: Path, state: dict[str, Any]) -> None:
    """Through a Python file, so that a full disk shows as the operating system's error: PyTorch's
    own writer has a sentence of its own for it."""
    import torch

    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def _read(path: Path) -> dict[str, Any] | None:
    """A state, or ``None`` where the file is damaged."""
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError):
        return None
    return state
