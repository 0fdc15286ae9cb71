"""Training labels that contradict the other rows."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.registry import METHODS, Method, Parts


@dataclass(frozen=True, slots=True)
class CorrectLabels:
    """Whether a training row counts as its most probable class where labels contradict the other
    rows. It has no settings; the rows of each fit are changed before its plan is made
    (``fits/label_correction.py``)."""


METHODS.add(
    "correct_labels",
    Method(CorrectLabels, lambda asked: Parts(), needs_one_answer=True, joins=False),
)
