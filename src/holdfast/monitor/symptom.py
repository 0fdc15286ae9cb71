"""A symptom: the label, the cause, or both, that one detector reports, with its evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Remedy
from holdfast.stats.paired_tests import Difference

# Causes that several detectors, or the rules for other programs' logs, name.
TOO_LONG = "trained too long for this much data"
FEW_ROWS = "too few rows"
OVERCONFIDENT = "overconfidence: the predicted probabilities exceed the accuracy"


@dataclass(frozen=True, slots=True)
class Symptom:
    """What one detector reports about a history.

    ``because`` is one sentence without its full stop. ``label`` is the verdict that the detector
    proposes; ``None`` where it only explains another detector's label. ``cause`` is the cause that
    it names, and ``explains`` lists the labels, in addition to its own, that this cause may
    explain. ``strength`` in [0, 1] is the confidence of the label. ``blame`` in [0, 1] is how much
    the cause explains; the verdict names the cause with the largest. ``since_step`` is the step at
    which it began.
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
    """Make an evidence item; numbers that are not finite become ``None``."""
    value, low, high = (
        None if one is None or not math.isfinite(one) else float(one) for one in (value, low, high)
    )
    return Evidence(name, value, low, high, step)


def difference_evidence(name: str, gap: Difference, step: int | None = None) -> Evidence:
    """Make an evidence item of a difference with its interval."""
    return evidence_item(name, gap.value, gap.low, gap.high, step)


def clip_confidence(value: float) -> float:
    """Clip a confidence to [0, 1]; 0 where it is not finite."""
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
