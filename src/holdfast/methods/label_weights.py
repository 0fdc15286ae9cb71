"""Weights of rows by the probability that their label is right, as a method of the recipe."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.registry import METHODS, Method, Parts


@dataclass(frozen=True, slots=True)
class LabelWeights:
    """Whether a training row weighs as much as its label is probably right. It has no settings; the
    weights of each fit are computed before its plan is made (``fits/label_weights.py``)."""


METHODS.add(
    "label_weights",
    Method(LabelWeights, lambda settings: Parts(), needs_one_answer=True, joins=False),
)
