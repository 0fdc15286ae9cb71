"""Whether a fairness mitigation is better than flipping predictions at random (Fairea, ESEC/FSE
2021).

Any gap shrinks if a share δ of the rows gets one constant prediction: 1 − δ of the gap is left, and
the accuracy falls on a line to that of the constant prediction. In 49 % of the cases in the paper,
published mitigations lay below that line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.fairness.forms import label_query, make_forms, predict_forms, read_axes
from holdfast.analyses.fairness.groups import ALPHA, MIN_ROWS, Grouping, groupings_of, measures_of
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.metrics.resample import ResampledUnits
from holdfast.recipe.parts import FairnessPart
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.bootstrap import bootstrap, fold_atoms, sums
from holdfast.stats.intervals import group_freedom
from holdfast.stats.paired_tests import Difference, t_interval
from holdfast.stats.two_samples import holm

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """A mitigated model compared with the plain one on the same rows: their accuracies and gaps,
    and the ``reduction`` of the gap. ``flipped`` is the share δ of flipped predictions that reduces
    the plain gap to the mitigated one, ``line`` the accuracy of the plain model after that, and
    ``gain`` the mitigated accuracy minus it. ``p_value`` is that of the verdict."""

    accuracy: float
    accuracy_plain: float
    gap: float
    gap_plain: float
    reduction: Estimate
    flipped: float
    line: float
    gain: Estimate
    p_value: float

    def verdict(self, p_adjusted: float) -> str:
        """``better`` than flipping or ``no better`` where the gap is shown to be smaller, ``wider``
        where it is shown to be wider, else ``undecided``."""
        if p_adjusted > ALPHA:
            return "undecided"
        if self.gap > self.gap_plain:
            return "wider"
        return "better" if (self.gain.value or 0) > 0 else "no better"

    def to_json(self, p_adjusted: float) -> dict[str, object]:
        """The fields for JSON, with the verdict; ``p_adjusted`` is the p-value after Holm."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        estimates = {"reduction": self.reduction.to_json(), "gain": self.gain.to_json()}
        return {
            **fields,
            **estimates,
            "p_adjusted": p_adjusted,
            "verdict": self.verdict(p_adjusted),
        }


def fairea(
    correct: Bools,
    correct_plain: Bools,
    labels: Ints,
    values: Floats,
    values_plain: Floats,
    *,
    rows: Ints | None = None,
    units: Ints | None = None,
) -> Tradeoff:
    """The trade-off on the same rows.

    Parameters
    ----------
    correct, correct_plain : [n], whether the mitigated and the plain model are correct.
    labels : [n], the classes; flipped rows get the most frequent one.
    values, values_plain : [r, groups, outcomes], NaN for a row that is not in a group. A gap is the
        largest difference between the means of two groups in any outcome.
    rows : [r], the positions of the rows of ``values``; by default all.
    units : [n], whole numbers, where rows come in groups.

    The gain is the accuracy minus that of (1 − δ) · plain + δ · most frequent class: expected
    values, so that nothing is random. δ comes from the same rows, so the whole statistic is
    computed again without each row or unit (a jackknife), with Student's t. The p-value is the
    larger of those of both claims, a smaller gap and an accuracy off the line; for a wider gap
    there is only the first.
    """
    resampled = ResampledUnits.by(units, len(labels))
    codes, atoms = fold_atoms(resampled.codes, resampled.atoms)
    value_codes = codes if rows is None else codes[rows]
    most_frequent = labels == np.bincount(labels).argmax()
    hits = np.column_stack([correct, correct_plain, most_frequent, np.ones(len(labels))])
    hit_sums = sums(hits.astype(np.float64), codes, atoms)
    means = _GroupMeans.of(values, values_plain, value_codes, atoms)

    def statistic(weights: Floats) -> Floats:
        gap, gap_plain = (_largest_gap(one) for one in means(weights))
        accuracy, plain, frequent, total = (weights @ hit_sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            flipped = np.where(gap_plain > 0, np.clip(1 - gap / gap_plain, 0, 1), 1.0)
        line = ((1 - flipped) * plain + flipped * frequent) / total
        gain = accuracy / total - line
        return np.column_stack([gap_plain - gap, gain, gap, gap_plain, flipped, line])

    # Only the jackknife's error is used, which needs no draws.
    result = bootstrap(
        statistic, np.ones(atoms, np.int64), seed=generator(0, "fairea"), resamples=1, blocks=500
    )
    reduction, gain, gap, gap_plain, flipped, line = map(float, result.value)
    error, gain_error, *_ = map(float, result.error)
    reduced = t_interval(reduction, error, means.freedom, LEVEL, atoms)
    gained = t_interval(gain, gain_error, group_freedom(np.bincount(codes)), LEVEL, atoms)
    p_value = max(reduced.p_value, gained.p_value) if reduction > 0 else reduced.p_value
    return Tradeoff(
        float(correct.mean()),
        float(correct_plain.mean()),
        gap,
        gap_plain,
        _estimate(reduced),
        flipped,
        line,
        _estimate(gained),
        1.0 if math.isnan(error) else p_value,
    )


def _estimate(difference: Difference) -> Estimate:
    if math.isnan(difference.low):
        return Estimate(difference.value, why="the rows do not show how it varies")
    return Estimate(difference.value, difference.low, difference.high)


@dataclass(frozen=True, slots=True, eq=False)
class _GroupMeans:
    """The means of both models' values by group and outcome, as functions of the units' weights:
    ``new`` and ``plain`` are sums over ``counts`` rows, [atoms, groups, outcomes]."""

    new: Floats
    plain: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, values_plain: Floats, codes: Ints, atoms: int) -> _GroupMeans:
        parts = (np.nan_to_num(values), np.nan_to_num(values_plain), np.isfinite(values))
        shape = (atoms, *values.shape[1:])
        return cls(
            *(
                sums(part.reshape(len(part), -1).astype(np.float64), codes, atoms).reshape(shape)
                for part in parts
            )
        )

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        new, plain, counts = (
            np.tensordot(weights, one, 1) for one in (self.new, self.plain, self.counts)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return new / counts, plain / counts

    @property
    def freedom(self) -> float:
        """The fewest degrees of freedom of the groups whose means form the two gaps."""
        freedoms = []
        for (means,) in self(np.ones((1, len(self.counts)))):
            outcome = int(_gaps(means).argmax())
            for group in (means[:, outcome].argmax(), means[:, outcome].argmin()):
                freedoms.append(group_freedom(self.counts[:, group, outcome]))
        return min(freedoms)


def _gaps(means: Floats) -> Floats:
    """Largest − smallest of the means [..., groups, outcomes] over groups; a group without rows is
    NaN, and a gap of fewer than two groups 0."""
    known = np.isfinite(means)
    high, low = np.where(known, means, -np.inf), np.where(known, means, np.inf)
    gaps = high.max(axis=-2) - low.min(axis=-2)
    return np.where(np.isfinite(gaps), gaps, 0.0)


def _largest_gap(means: Floats) -> Floats:
    return np.asarray(_gaps(means).max(axis=-1))


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
    pairs = _group_outcomes(predictions, plain_predictions, groupings if part.columns else ())
    queries = label_query(new.predictor), label_query(plain.predictor)
    for axis in read_axes(part) if all(queries) else ():
        forms = make_forms(
            predictions.table, axis, part.rows, insert=part.insert, seed=new.recipe.seed
        )
        if len(forms) < 2:
            continue
        outcomes = [
            predict_forms(forms, predictions.table, each.predict)
            for each in queries
            if each is not None
        ]
        pairs.append((axis.name, "swapped terms", outcomes[0], outcomes[1], forms.positions))
    tradeoffs = [
        fairea(
            _correct(predictions),
            _correct(plain_predictions),
            predictions.table.column("label"),
            values,
            values_plain,
            rows=rows,
            units=predictions.groups,
        )
        for _, _, values, values_plain, rows in pairs
    ]
    adjusted = holm(np.array([one.p_value for one in tradeoffs]))
    lines = [
        {"by": by, "measure": measure, **one.to_json(float(p))}
        for (by, measure, *_), one, p in zip(pairs, tradeoffs, adjusted, strict=True)
    ]
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


# A name and a measure, the values of both models [r, groups, outcomes], and their rows.
_Pair = tuple[str, str, Floats, Floats, Ints | None]


def _group_outcomes(
    new: Predictions, plain: Predictions, groupings: Sequence[Grouping]
) -> list[_Pair]:
    """Each measure in each group with ``MIN_ROWS`` rows or more to which it applies."""
    pairs: list[_Pair] = []
    for grouping in groupings:
        inside = np.column_stack([grouping.inside(name) for name in grouping.names])
        for one, other in zip(measures_of(new), measures_of(plain), strict=True):
            counted = inside & one.applies[:, None]
            counted &= counted.sum(axis=0) >= MIN_ROWS
            values, values_plain = (
                np.where(counted, each.values[:, None], np.nan)[:, :, None] for each in (one, other)
            )
            pairs.append((grouping.name, one.title, values, values_plain, None))
    return pairs
