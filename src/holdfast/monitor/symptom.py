"""What one detector sees, a symptom: a label, a cause, or both, with its evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Remedy
from holdfast.stats.paired_tests import Difference

# Causes that several detectors name; the first one foreign logs too.
TOO_LONG = "trained too long for this much data"
FEW_ROWS = "too few rows"


@dataclass(frozen=True, slots=True)
class Symptom:
    """One detector's word on a history.

    ``because`` is one sentence without its full stop. ``label`` is what the detector would call
    the run; ``None`` where it only explains another's label. ``cause`` is what it names as the
    cause, and ``explains`` the labels (beside its own) that this may be the cause of. ``strength``
    in [0, 1] is the confidence of the label, ``blame`` in [0, 1] how much the cause explains: of
    several, the largest is named. ``since_step`` is when it began.
    """

    because: str
    strength: float = 0.0
    label: Label | None = None
    cause: str | None = None
    blame: float = 1.0
    explains: tuple[Label, ...] = ()
    since_step: int | None = None
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()


def evidence_item(
    name: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
) -> Evidence:
    """Evidence in which what is not a number is ``None``."""
    value, low, high = (
        None if one is None or not math.isfinite(one) else float(one) for one in (value, low, high)
    )
    return Evidence(name, value, low, high, step)


def difference_evidence(name: str, gap: Difference, step: int | None = None) -> Evidence:
    """A difference with its interval as evidence."""
    return evidence_item(name, gap.value, gap.low, gap.high, step)


def clip_confidence(value: float) -> float:
    """A confidence within [0, 1]; 0 where it is not a number."""
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
