"""How fast the model is, by what it took of late: seconds a token, over turns of the usual size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """The mean of the last turns, in which one ``memory`` tokens ago counts half.

    By tokens and not by turns: under load turns are large, and those are what a newcomer waits for.
    """

    memory: float = 4096.0
    _seconds: float = field(default=0.0)
    _tokens: float = field(default=0.0)

    def add(self, tokens: int, seconds: float) -> None:
        """A turn is over."""
        kept = math.exp2(-tokens / self.memory)
        self._seconds = self._seconds * kept + seconds
        self._tokens = self._tokens * kept + tokens

    def doubt(self) -> None:
        """Somebody was refused by this while nobody was answered, so that no turn would ever show
        that the model is quicker by now (the machine may have stood still in the last one): the
        next ones are trusted sooner."""
        self._seconds /= 2

    @property
    def seconds(self) -> float:
        """Seconds a token; 0 where nothing was measured yet."""
        return self._seconds / self._tokens if self._tokens else 0.0
