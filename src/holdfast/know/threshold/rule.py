"""Which answers are given, and which are left to a person: what ``predict`` does by a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from holdfast.core.records import Floats
from holdfast.know.threshold.costs import CostMatrix

By = Literal["precision", "coverage", "cost"]
TO_A_PERSON = "ask a person"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row is answered where the model is sure enough (``threshold``), or where an answer costs
    less than none (``matrix``)."""

    by: By
    threshold: float | None
    matrix: CostMatrix | None = None

    def apply(
        self,
        predictions: Sequence[Any],
        confidence: Sequence[float | None],
        probabilities: Floats | None,
    ) -> tuple[list[Any], list[float | None], list[str | None]]:
        """Predictions, certainties and reasons [n]; ``None`` stands where no answer is given, with
        its reason."""
        if self.matrix is not None:
            assert probabilities is not None
            chosen = self.matrix.choose(probabilities)
            names, least = self.matrix.names, np.arange(len(chosen))
            said = [names[k] if k >= 0 else None for k in chosen]
            sure: list[float | None] = probabilities[least, np.maximum(chosen, 0)].tolist()
            sure = [p if k >= 0 else c for p, k, c in zip(sure, chosen, confidence, strict=True)]
            why = f"any answer is expected to cost more than none: {TO_A_PERSON}"
            return said, sure, [None if one is not None else why for one in said]
        least_sure = float(self.threshold or 0.0)
        given = [p is not None and p >= least_sure for p in confidence]
        why = f"below the threshold of {least_sure:.4g}: {TO_A_PERSON}"
        return (
            [one if yes else None for one, yes in zip(predictions, given, strict=True)],
            list(confidence),
            [None if yes else why for yes in given],
        )

    def to_json(self) -> dict[str, Any]:
        """The part of ``threshold.json`` that ``of`` reads."""
        matrix = None
        if self.matrix is not None:
            cost = np.where(np.isfinite(self.matrix.cost), self.matrix.cost, np.nan)
            matrix = {"classes": list(self.matrix.names), "cost": cost}
        return {"by": self.by, "threshold": self.threshold, "matrix": matrix}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Rule:
        """The rule that ``to_json`` wrote. Raises ``ValueError`` for anything else."""
        by, threshold, found = stored["by"], stored["threshold"], stored["matrix"]
        if by not in ("precision", "coverage", "cost"):
            raise ValueError(f"by must be precision, coverage or cost, not {by!r}")
        if by == "cost":
            cost = [[np.inf if c is None else float(c) for c in line] for line in found["cost"]]
            names = tuple(map(str, found["classes"]))
            if np.shape(cost) != (len(names), len(names) + 1):
                raise ValueError("cost must have a line a class, and a column more")
            return cls(by, None, CostMatrix(names, np.array(cost)))
        if not isinstance(threshold, (int, float)):
            raise ValueError("threshold must be a number")
        return cls(by, float(threshold))
