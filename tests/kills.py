"""End a run from inside, as a kill would."""

from __future__ import annotations

from typing import Any


class KillAt:
    """Raises ``error`` the ``count``-th time that a run calls its ``event``."""

    name = "kill"

    def __init__(self, event: str, count: int, error: type[BaseException]) -> None:
        self.left, self.error = count, error
        setattr(self, event, self.hear)

    def hear(self, run: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error
