"""The rows that a model would give away first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Floats, Ints

SHOWN = 10
TEXT = 160


@dataclass(frozen=True, slots=True)
class Exposed:
    """One row of the source with its ``risk``, what it says and its label, where there are some."""

    row: int
    risk: float
    text: str | None = None
    label: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"row": self.row, "risk": self.risk, "text": self.text, "label": self.label}


def most_exposed(
    rows: Ints, risk: Floats, texts: Sequence[str] | None, labels: Sequence[str | None] | None
) -> tuple[Exposed, ...]:
    """The ten rows of the largest ``risk`` [n], the first in the source first among equals."""
    known = np.flatnonzero(~np.isnan(risk))
    order = known[np.lexsort((rows[known], -risk[known]))][:SHOWN]
    return tuple(
        Exposed(
            int(rows[at]),
            float(risk[at]),
            None if texts is None else _cut(texts[at]),
            None if labels is None else labels[at],
        )
        for at in order
    )


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= TEXT else f"{plain[: TEXT - 1]}…"
