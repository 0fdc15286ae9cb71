"""Whose answer to a row is nearer to what is right: the challenger's, the shown one, neither."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.analyses.compare.verdict import paired
from holdfast.analyses.row_texts import AnswerKind
from holdfast.core.tasks import TAGGERS, WRITERS


def answer_kind(task: str, label: Any) -> AnswerKind:
    """What kind of answer a row of ``task`` has, whose label is JSON."""
    if task in TAGGERS:
        return "tags"
    if task in WRITERS:
        return "text"
    if isinstance(label, (list, tuple)):
        return "several"
    # A class is written as text, even one that is called 3.
    return "number" if isinstance(label, (int, float)) and not isinstance(label, bool) else "class"


def nearer(task: str, label: Any, first: Any, second: Any) -> int:
    """1 where the ``first`` answer is nearer to the label, −1 where the second is, else 0.

    A class is right or not; several labels and tags go by the row's F1, numbers by how far they are
    off, texts by ROUGE-L. ``None`` (left to a person) is as good as a wrong class, an empty set
    or text, and further off than any number.
    """
    if first == second:
        return 0
    kind = answer_kind(task, label)
    if kind == "number":
        first, second = _number(first), _number(second)
        if first is None or second is None:
            return int(first is not None) - int(second is not None)
    if kind == "class":
        label, first, second = str(label), _name(first), _name(second)
    gap = paired(kind, [label], [first], [second]).gap[0]
    if np.isnan(gap):
        # An F1 of nothing said where nothing was to be said.
        return int(_same(label, first)) - int(_same(label, second))
    return int(np.sign(gap))


def _same(label: Any, answer: Any) -> bool:
    return sorted(label) == sorted(answer or ())


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _name(value: Any) -> str | None:
    return None if value is None else str(value)
