"""Training labels that contradict the other rows."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.registry import METHODS, Method, Parts


@dataclass(frozen=True, slots=True)
class DropWrongLabels:
    """Whether rows are excluded from training whose labels the other rows contradict. It has no
    settings; the rows of each fit are chosen before its plan is made (``fits/wrong_labels.py``)."""


METHODS.add(
    "drop_wrong_labels",
    Method(DropWrongLabels, lambda asked: Parts(), needs_one_answer=True, joins=False),
)
