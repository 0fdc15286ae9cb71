"""What copies cost, as a value, and who is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from holdfast.core.records import Ints
from holdfast.duplicates.gather import AllRows
from holdfast.quality.leaks import Leaks


@dataclass(frozen=True, slots=True)
class Price:
    """By how many points (hundredths) an accuracy is too good, with an interval; ``copies`` of the
    ``rows`` that are scored are copies."""

    points: float
    low: float
    high: float
    copies: int
    rows: int

    def __str__(self) -> str:
        if self.low <= 0:
            return f"no more than {max(self.high, 0.0):.1f} points"
        return f"up to {self.points:.1f} points ({self.low:.1f} to {self.high:.1f})"


class Prices(Protocol):
    """Whoever prices copies; ``None`` where that cannot be told. See ``price.py``."""

    def of_leaks(self, gathered: AllRows, pairs: Leaks) -> Price | None: ...

    def of_division(self, gathered: AllRows, units: Ints) -> Price | None: ...
