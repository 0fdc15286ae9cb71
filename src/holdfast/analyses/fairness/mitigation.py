"""Is a mitigation better than flipping predictions at random? (Fairea, ESEC/FSE 2021.)

Any gap can be made smaller by giving a share δ of the rows one and the same answer: of the gap
1 − δ is left, and the accuracy falls along a line to that of this answer alone. On 49 % of the
cases that the paper looked at, published mitigations lay below that line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.fairness.forms import label_query, make_forms, predict_forms, read_axes
from holdfast.analyses.fairness.groups import Grouping, group_means, groupings_of, measures_of
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.recipe.parts import FairnessPart
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.paired_tests import paired_t


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """A mitigated model beside the plain one on the same rows: their accuracies and gaps (how much
    was left out of account is ``flipped``, the δ that brings the plain gap to the mitigated one),
    the accuracy of the plain one after that (``line``) and ``gain`` over it, with its interval.

    ``verdict``: ``better`` than flipping, ``no better``, or ``undecided``; ``wider`` where the gap
    is not smaller at all."""

    accuracy: float
    accuracy_plain: float
    gap: float
    gap_plain: float
    flipped: float
    line: float
    gain: Estimate
    verdict: str

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "gain"} | {
            "gain": self.gain.to_json()
        }


def fairea(
    correct: Bools, correct_plain: Bools, labels: Ints, gap: float, gap_plain: float
) -> Tradeoff:
    """The trade-off on the same rows [n]. ``labels`` [n] are their classes, of which the most
    frequent is what flipped rows are answered; gaps are at least 0.

    The gain of a row is its hit less what it would be after flipping, (1 − δ) · plain hit + δ ·
    [label is the most frequent]: expected values, so that no chance is drawn; Student's interval.
    """
    hits, plain = correct.astype(np.float64), correct_plain.astype(np.float64)
    most_frequent = (labels == np.bincount(labels).argmax()).astype(np.float64)
    flipped = 1.0 if not gap_plain else min(1.0, max(0.0, 1 - gap / gap_plain))
    line: Floats = (1 - flipped) * plain + flipped * most_frequent
    difference = paired_t(hits, line)
    gain = Estimate(difference.value, difference.low, difference.high)
    verdict = "undecided"
    if gap >= gap_plain:
        verdict = "wider"
    elif not math.isnan(difference.low) and difference.low > 0:
        verdict = "better"
    elif not math.isnan(difference.high) and difference.high <= 0:
        verdict = "no better"
    return Tradeoff(
        float(hits.mean()),
        float(plain.mean()),
        gap,
        gap_plain,
        flipped,
        float(line.mean()),
        gain,
        verdict,
    )


def mitigation_tradeoffs(
    new: FinishedRun, plain: FinishedRun, part: FairnessPart
) -> list[dict[str, Any]]:
    """What a mitigated run gave up and gained beside the plain one: a line for each column and
    axis, decided on the validation rows that both have.

    Raises ``RunError`` where the two do not share their validation rows, ``RecipeError`` where
    there is nothing to compare by.
    """
    predictions, plain_predictions = _shared_predictions(new, plain)
    columns = new.other_columns(predictions.table)
    groupings = groupings_of(columns, part.columns or [*columns])
    if part.columns and len(groupings) < len(part.columns):
        missing = next(name for name in part.columns if name not in columns)
        raise RecipeError("--group", "names no column of the source", missing, "Check its name.")
    labels = predictions.table.column("label")
    lines = []
    for grouping in groupings if part.columns else ():
        gaps = _largest_gaps(predictions, grouping), _largest_gaps(plain_predictions, grouping)
        for (name, gap), (_, plain_gap) in zip(*gaps, strict=True):
            tradeoff = fairea(
                _correct(predictions), _correct(plain_predictions), labels, gap, plain_gap
            )
            lines.append({"by": grouping.name, "measure": name, **tradeoff.to_json()})
    queries = label_query(new.predictor), label_query(plain.predictor)
    for axis in read_axes(part) if all(queries) else ():
        forms = make_forms(
            predictions.table, axis, part.rows, insert=part.insert, seed=new.recipe.seed
        )
        if len(forms) < 2:
            continue
        swap_changes = [
            _largest_change(predict_forms(forms, predictions.table, each.predict))
            for each in queries
            if each is not None
        ]
        tradeoff = fairea(_correct(predictions), _correct(plain_predictions), labels, *swap_changes)
        lines.append({"by": axis.name, "measure": "swapped terms", **tradeoff.to_json()})
    if not lines:
        rule = "need a column of groups, or rows with terms to swap, to be compared by"
        raise RecipeError("two runs", rule, None, "Give --group COLUMN, or --insert.")
    return lines


def _shared_predictions(new: FinishedRun, plain: FinishedRun) -> tuple[Predictions, Predictions]:
    one, other = new.valid, plain.valid
    if one.wrong is None or "label" not in one.table.rows.column_names or not one.names:
        task = new.result.get("task")
        rule = "is for runs that answer with classes"
        raise RecipeError("--against", rule, task, "Compare the two runs' own blocks.")
    same = len(one) == len(other) and np.array_equal(one.rows, other.rows)
    if not same or one.table.source != other.table.source:
        raise RunError(
            str(plain.run),
            f"has other validation rows than {new.run}, and the two are compared row by row",
            f"{len(other)} and {len(one)}",
            "Train both from one source with the same seed and division.",
        )
    return one, other


def _correct(predictions: Predictions) -> Bools:
    assert predictions.wrong is not None
    return ~predictions.wrong


def _largest_gaps(predictions: Predictions, grouping: Grouping) -> list[tuple[str, float]]:
    """The largest difference of each measure between the groups."""
    gaps = []
    for one in measures_of(predictions):
        means = group_means(one, grouping).values()
        gaps.append((one.title, max(means) - min(means) if means else 0.0))
    return gaps


def _largest_change(outcomes: Floats) -> float:
    """The largest mean change of any answer between two groups."""
    means = outcomes.mean(axis=0)
    return float(np.abs(means[None] - means[:, None]).max())
