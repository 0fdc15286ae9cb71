"""``threshold.json`` of a run: write, read and check it, and apply it to predictions.

A threshold decides which predictions ``predict`` gives, and which rows it leaves to a person.

A cost matrix states the cost of each type of error; the rule then chooses the prediction of least
expected cost.

Also names a finished run's model in a service.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from holdfast.contract.run_folder import open_run
from holdfast.core.errors import RunError
from holdfast.core.files import json_digest, refuse_link, write_json
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.run_files import MODEL_FOLDER
from holdfast.core.run_shapes import SEAL
from holdfast.core.seeds import generator
from holdfast.stats.streams.means import betting_limits

FILE = "threshold.json"
TAKE_AWAY = (
    f"Remove {FILE}: every row then gets a prediction; or choose a new threshold with --force."
)


def write_threshold(run: Path, document: Mapping[str, object]) -> None:
    """Write the document (plain JSON) with its checksum, completely or not at all."""
    refuse_link(run / FILE)
    write_json(run / FILE, {**document, "sha256": _document_digest(document)})


def refuse_existing(run: Path) -> None:
    """Raise ``RunError`` where a threshold is stored."""
    path = run / FILE
    if not path.exists() and not path.is_symlink():
        return
    refuse_link(path)
    with reading_errors(str(path), RunError, remedy=TAKE_AWAY):
        stored = json.loads(path.read_text("utf-8"))
        request_text = f"{stored.get('by')} {stored.get('asked')}"
    raise RunError(
        str(path), "already holds a threshold", request_text, "Choose a new one with --force."
    )


def model_fingerprint(result: Mapping[str, Any]) -> str | None:
    """The identity of the model that a threshold was chosen for: the checksums of its files, or
    ``None`` where the run has no seal."""
    files = (result.get(SEAL) or {}).get("files") or {}
    model = {name: mark for name, mark in files.items() if name.startswith(f"{MODEL_FOLDER}/")}
    return json_digest(model) if model else None


def _document_digest(document: Mapping[str, object]) -> str:
    return json_digest({name: value for name, value in document.items() if name != "sha256"})


def read_threshold(run: Path) -> ThresholdRule | None:
    """The run's threshold rule, ``None`` where no threshold was set. Raises ``RunError`` where the
    file was changed, or belongs to another model."""
    path = run / FILE
    if not path.exists() and not path.is_symlink():
        return None
    refuse_link(path)
    with reading_errors(str(path), RunError, "cannot be read", TAKE_AWAY):
        stored = json.loads(path.read_text("utf-8"))
        changed = stored.get("sha256") != _document_digest(stored)
        rule = None if changed else ThresholdRule.of(stored["rule"])
    if rule is None:
        raise RunError(str(path), "was changed since it was chosen", None, TAKE_AWAY)
    result = open_run(run)
    fingerprint = model_fingerprint(result)
    other_classes = rule.matrix is not None and [*rule.matrix.names] != [
        *(result.get("classes") or ())
    ]
    if other_classes or (fingerprint is not None and stored.get("model") != fingerprint):
        raise RunError(str(path), "was chosen for another model", None, TAKE_AWAY)
    return rule


def load_rule(runs: Sequence[Path]) -> tuple[ThresholdRule | None, tuple[Decision, ...]]:
    """The rule of one run. The average of several runs has other confidences, so their thresholds
    are not applied, and a decision says so."""
    if len(runs) == 1:
        rule = read_threshold(runs[0])
        if rule is None:
            return None, ()
        threshold_text = f"{rule.threshold:.4g}" if rule.threshold is not None else "by cost"
        because = f"{runs[0] / FILE} was chosen with `holdfast threshold`"
        return rule, (Decision("threshold", threshold_text, because),)
    with_threshold = [str(run) for run in runs if (run / FILE).exists()]
    if not with_threshold:
        return None, ()
    because = f"{', '.join(with_threshold)} was chosen for one run, not for the average of several"
    return None, (Decision("threshold", "not applied", because, prominent=True),)


By = Literal["precision", "coverage", "cost"]
ASK_ANNOTATOR = "ask a person"


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """A row gets a prediction where the confidence is high enough (``threshold``), or where a
    prediction has a lower expected cost than none (``matrix``)."""

    by: By
    threshold: float | None
    matrix: CostMatrix | None = None

    def apply(
        self,
        predictions: Sequence[object],
        confidence: Sequence[float | None],
        probabilities: Floats | None,
    ) -> tuple[list[Any], list[float | None], list[str | None]]:
        """Predictions, confidences and reasons [n]; ``None`` where no prediction is given, with
        its reason."""
        if self.matrix is not None:
            assert probabilities is not None
            class_indices = self.matrix.choose(probabilities)
            names, positions = self.matrix.names, np.arange(len(class_indices))
            predicted = [names[k] if k >= 0 else None for k in class_indices]
            confidences: list[float | None] = probabilities[
                positions, np.maximum(class_indices, 0)
            ].tolist()
            confidences = [
                p if k >= 0 else c
                for p, k, c in zip(confidences, class_indices, confidence, strict=True)
            ]
            reason = f"any prediction has a higher expected cost than none: {ASK_ANNOTATOR}"
            return (
                predicted,
                confidences,
                [None if one is not None else reason for one in predicted],
            )
        min_confidence = float(self.threshold or 0.0)
        is_answered = [p is not None and p >= min_confidence for p in confidence]
        reason = f"below the threshold of {min_confidence:.4g}: {ASK_ANNOTATOR}"
        return (
            [one if yes else None for one, yes in zip(predictions, is_answered, strict=True)],
            list(confidence),
            [None if yes else reason for yes in is_answered],
        )

    def to_json(self) -> dict[str, Any]:
        """The part of ``threshold.json`` that ``of`` reads."""
        matrix = None
        if self.matrix is not None:
            cost = np.where(np.isfinite(self.matrix.cost), self.matrix.cost, np.nan)
            matrix = {"classes": list(self.matrix.names), "cost": cost}
        return {"by": self.by, "threshold": self.threshold, "matrix": matrix}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> ThresholdRule:
        """The rule that ``to_json`` wrote. Raises ``ValueError`` for anything else."""
        by, threshold, matrix = stored["by"], stored["threshold"], stored["matrix"]
        if by not in ("precision", "coverage", "cost"):
            raise ValueError(f"by must be precision, coverage or cost, not {by!r}")
        if by == "cost":
            cost = [[np.inf if c is None else float(c) for c in line] for line in matrix["cost"]]
            names = tuple(map(str, matrix["classes"]))
            if np.shape(cost) != (len(names), len(names) + 1):
                raise ValueError("cost must have one line per class, and one more column")
            return cls(by, None, CostMatrix(names, np.array(cost)))
        if not isinstance(threshold, (int, float)):
            raise ValueError("threshold must be a number")
        return cls(by, float(threshold))


CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class CostMatrix:
    """``cost`` [classes, classes + 1] of each prediction for a row of each class, in any unit; the
    last column is the cost of no prediction, ∞ where that is not allowed."""

    names: tuple[str, ...]
    cost: Floats

    def choose(self, probabilities: Floats) -> Ints:
        """The prediction [n] with the least expected cost (Chow 1970; Elkan 2001), −1 for none; of
        equal ones the more probable class, a class before none."""
        classes = len(self.names)
        expected = np.full((len(probabilities), classes + 1), math.inf)
        expected[:, :classes] = probabilities @ self.cost[:, :classes]
        if np.isfinite(self.cost[:, classes]).all():
            expected[:, classes] = probabilities @ self.cost[:, classes]
        ranking = np.column_stack([probabilities, np.full(len(probabilities), -1.0)])
        lowest = expected.min(axis=1, keepdims=True)
        ties = expected <= lowest + 1e-12 * np.maximum(1.0, np.abs(lowest))
        best = np.argmax(np.where(ties, ranking, -2.0), axis=1)
        return np.where(best == classes, -1, best)

    def paid(self, labels: Ints, answers: Ints) -> Floats:
        """The cost of the predictions [n] (−1 for none) on rows of these classes [n]."""
        return np.asarray(self.cost[labels, answers])


@dataclass(frozen=True, slots=True)
class RuleCost:
    """The mean cost per row on the rows by which it was estimated, for the prediction of least cost
    and for always predicting the most probable class. ``limit`` is above the true mean of the first
    in 95 % of samples, ``plain_limit`` above that of the second. ``answered`` of ``n`` rows get a
    prediction."""

    mean: float
    limit: float
    plain: float
    plain_limit: float
    n: int
    answered: int


def price_rule(matrix: CostMatrix, labels: Ints, probabilities: Floats) -> RuleCost:
    """The cost of the rule of ``matrix`` on validation rows. Nothing is chosen by them but one of
    two, the rule or plain prediction: so the limit is one-sided at 97.5 % (betting,
    ``betting_limits``). It holds for rows in random order, and sources are often sorted by class:
    the rows are shuffled."""
    order = generator(0, "price of a rule").permutation(len(labels))
    labels, probabilities = labels[order], probabilities[order]
    answers = matrix.choose(probabilities)
    paid = matrix.paid(labels, answers)
    plain = matrix.paid(labels, probabilities.argmax(axis=1))
    finite = matrix.cost[np.isfinite(matrix.cost)]
    low, high = float(finite.min()), float(finite.max())

    def limit(costs: Floats) -> float:
        if not len(costs) or high <= low:
            return high
        return float(betting_limits(costs, low, high, alpha=1 - CONFIDENCE_LEVEL).high[-1])

    return RuleCost(
        float(paid.mean()) if len(paid) else math.nan,
        limit(paid),
        float(plain.mean()) if len(paid) else math.nan,
        limit(plain),
        len(paid),
        int((answers >= 0).sum()),
    )


DIGITS = 8
UNSEALED = "unsealed"


def served_name(run: Path) -> str:
    """``NAME@MARK``: the folder's name and the beginning of the checksum of its model's files, so
    that a moved folder is still the same model. Raises ``RunError`` for a folder that is not a
    finished run."""
    mark = model_fingerprint(open_run(run)) or UNSEALED
    return f"{run.resolve().name}@{mark[:DIGITS]}"
