"""Whether a fairness mitigation is better than flipping predictions at random (Fairea, ESEC/FSE
2021).

Any gap shrinks if a share δ of the rows gets one constant prediction: 1 − δ of the gap is left, and
the accuracy falls on a line to that of the constant prediction. In 49 % of the cases in the paper,
published mitigations lay below that line.
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
    """A mitigated model compared with the plain one on the same rows: their accuracies and gaps.
    ``flipped`` is the share δ of flipped predictions that reduces the plain gap to the mitigated
    one, ``line`` the accuracy of the plain model after that, and ``gain`` the mitigated accuracy
    minus it, with its interval.

    ``verdict``: ``better`` than flipping, ``no better``, or ``undecided``; ``wider`` if the gap is
    not smaller."""

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
    """The trade-off on the same rows [n]. ``labels`` [n] are their classes; flipped rows get the
    most frequent one. Gaps are at least 0.

    The gain of a row is its hit minus the expected hit after flipping, (1 − δ) · plain hit + δ ·
    [label is the most frequent]: expected values, so that nothing is random; Student's interval.
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
    """What a mitigated run lost and gained compared with the plain one: a line for each column and
    axis, on the validation rows that both share.

    Raises ``RunError`` if the two do not share their validation rows, ``RecipeError`` if there is
    nothing to compare.
    """
    predictions, plain_predictions = _shared_predictions(new, plain)
    columns = new.other_columns(predictions.table)
    groupings = groupings_of(columns, part.columns or [*columns])
    if part.columns and len(groupings) < len(part.columns):
        missing = next(name for name in part.columns if name not in columns)
        raise RecipeError("--group", "names an unknown column", missing, "Check its name.")
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
        rule = "have no column of groups and no rows with terms to swap, so nothing can be compared"
        raise RecipeError("two runs", rule, None, "Name a column of groups, or use --insert.")
    return lines


def _shared_predictions(new: FinishedRun, plain: FinishedRun) -> tuple[Predictions, Predictions]:
    one, other = new.valid, plain.valid
    if one.wrong is None or "label" not in one.table.rows.column_names or not one.names:
        task = new.result.get("task")
        rule = "is for runs that predict classes"
        raise RecipeError("--against", rule, task, "Compare the reports of the two runs.")
    same = len(one) == len(other) and np.array_equal(one.rows, other.rows)
    if not same or one.table.source != other.table.source:
        raise RunError(
            str(plain.run),
            f"has other validation rows than {new.run}, but the two are compared row by row",
            f"{len(other)} and {len(one)}",
            "Train both from one source with the same seed and split, and both with --set "
            "train.folds=0 (a cross-fitted run validates on its training rows too).",
        )
    return one, other


def _correct(predictions: Predictions) -> Bools:
    assert predictions.wrong is not None
    return ~predictions.wrong


def _largest_gaps(predictions: Predictions, grouping: Grouping) -> list[tuple[str, float]]:
    """The largest difference between the groups in each measure."""
    gaps = []
    for one in measures_of(predictions):
        means = group_means(one, grouping).values()
        gaps.append((one.title, max(means) - min(means) if means else 0.0))
    return gaps


def _largest_change(outcomes: Floats) -> float:
    """The largest mean change of any outcome between two groups."""
    means = outcomes.mean(axis=0)
    return float(np.abs(means[None] - means[:, None]).max())
