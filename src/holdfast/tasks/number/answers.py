"""Text regression: outputs, scores, and what differs from one class a text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import FittedModel
from holdfast.contract.inference import format_number
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Estimate, Floats, Ints, Scores
from holdfast.data.table import Table
from holdfast.metrics.comparison import compare_losses
from holdfast.metrics.resample import POSITIVE, RESAMPLES, ResampledUnits, Resampling, undefined
from holdfast.models.encoders.network import REGRESSION
from holdfast.models.probes.probe import Probe, fit_ridge
from holdfast.recipe import Recipe
from holdfast.tasks.hardest import hardest_rows
from holdfast.tasks.labels.base import LoadedText, RawOutputs, loaded_text
from holdfast.tasks.number.losses import Numbers, Scale, number_losses

METRICS = ("mae", "rmse", "r2", "spearman", "loss")
WITHIN = {"mae": POSITIVE, "rmse": POSITIVE, "r2": (-math.inf, 1.0), "loss": POSITIVE}
# Rows times resamples for rank correlations: 2,000 resamples up to 10,000 rows.
RANKED_ROWS = 20_000_000


@dataclass(frozen=True, slots=True)
class NumberOutputs:
    """A model's outputs for some rows: ``labels`` and ``answers`` (the predictions) [n] in the
    user's unit, float64; ``losses`` [n] in squared deviations of the training rows.
    """

    rows: Ints
    labels: Floats
    answers: Floats
    losses: Floats
    groups: npt.NDArray[Any] | None = None

    @property
    def units(self) -> ResampledUnits:
        """The resampling unit: rows, or the groups they are in."""
        return ResampledUnits.by(self.groups, len(self.rows))


def score_numbers(
    outputs: NumberOutputs, *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Scores:
    """``mae``, ``rmse`` (user's unit), ``r2`` = 1 − Σ e² ÷ Σ (y − ȳ)² with the mean of these rows,
    ``spearman`` (average ranks for ties), ``loss``.

    Intervals are BCa over rows, or Student's over groups. Undefined, with the reason: no rows; R²
    and rank correlation where the numbers do not vary; a number that is not finite.
    """
    if not len(outputs.rows):
        return Scores(0, dict.fromkeys(METRICS, undefined("there are no rows")))
    if not (np.isfinite(outputs.answers).all() and np.isfinite(outputs.losses).all()):
        nothing = undefined("a prediction is not finite")
        return Scores(len(outputs.rows), dict.fromkeys(METRICS, nothing))
    gaps = outputs.answers - outputs.labels
    # Sums of squares of numbers far from 0 lose digits; a shift leaves their spread as it is.
    shifted = outputs.labels - outputs.labels.mean()
    columns = [np.abs(gaps), gaps**2, shifted, shifted**2, outputs.losses, np.ones(len(gaps))]
    drawing = Resampling(outputs.units, seed, level, resamples)
    result, _ = drawing.sums(np.column_stack(columns), _values, "numbers")
    metrics = {
        name: drawing.estimate(result, column, within=within)
        for column, (name, within) in enumerate(WITHIN.items())
    }
    if outputs.labels.min() == outputs.labels.max():
        metrics["r2"] = undefined("the numbers of these rows do not vary")
    metrics["spearman"] = _spearman(outputs, drawing)
    return Scores(len(outputs.rows), {name: metrics[name] for name in METRICS})


def _values(totals: Floats) -> Floats:
    errors, squares, level, spread, losses, n = totals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        around = spread - level**2 / n
        # The spread of equal numbers is rounding error, which makes R² arbitrary.
        r2 = np.where(around > 1e-12 * np.maximum(spread, 1e-300), 1 - squares / around, np.nan)
        return np.stack([errors / n, np.sqrt(squares / n), r2, losses / n], axis=1)


def _spearman(outputs: NumberOutputs, drawing: Resampling) -> Estimate:
    for values, plural_name in ((outputs.labels, "numbers"), (outputs.answers, "answers")):
        if values.min() == values.max():
            return undefined(f"the {plural_name} of these rows do not vary")
    ranked = _ranked(outputs.labels), _ranked(outputs.answers)

    def correlation(weights: Floats) -> Floats:
        rows = drawing.units.spread(weights)
        first, second = (ranks.under(rows) for ranks in ranked)
        return _pearson(first, second, rows)

    # A resample takes as many steps as there are rows.
    count = min(drawing.resamples, max(400, RANKED_ROWS // len(outputs.rows)))
    result = replace(drawing, resamples=count).bootstrap(correlation, "spearman", 300)
    notes = [f"{count} resamples, to save time"] if count < drawing.resamples else []
    return drawing.estimate(result, 0, *notes, within=(-1.0, 1.0))


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The rows in ``order`` of a number; ``starts`` says where each distinct number begins in it,
    ``place`` [n] which distinct number a row has.
    """

    order: Ints
    starts: Ints
    place: Ints

    def under(self, weights: Floats) -> Floats:
        """Average ranks [r, n] where each row occurs ``weights`` [r, n] times."""
        times = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        middle = np.cumsum(times, axis=1) - times / 2 + 0.5
        return np.asarray(middle[:, self.place])


def _ranked(values: Floats) -> _Ranked:
    order = np.argsort(values, kind="stable")
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return _Ranked(order, np.cumsum(count) - count, place.reshape(-1))


def _pearson(first: Floats, second: Floats, weights: Floats) -> Floats:
    n = weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Pearson's correlation of the ranks: every resample has ties, for which the shorter formula
        # with squared differences of ranks is wrong.
        one = first - (weights * first).sum(axis=1, keepdims=True) / n
        two = second - (weights * second).sum(axis=1, keepdims=True) / n
        joint = (weights * one * two).sum(axis=1)
        size = np.sqrt((weights * one**2).sum(axis=1) * (weights * two**2).sum(axis=1))
        return np.where(size > 1e-12, joint / size, np.nan)


class NumberLabelType:
    """One output, trained in standard deviations of the training rows, saved in the user's unit."""

    label_kind = "number"
    problem_type = REGRESSION
    baseline_name = "training mean"

    def output_names(self, table: Table) -> tuple[str, ...]:
        return (str(table.columns.label),)

    def scale(self, table: Table) -> Scale:
        values = table.column("value")
        std = float(values.std())
        if not std > 0:
            rule = "has the same number in all training rows, so there is nothing to learn"
            remedy = "Choose another column with --label."
            raise DataError(table.source, rule, float(values[0]), remedy)
        return Scale(float(values.mean()), std)

    def labels(self, table: Table, scale: Scale) -> npt.NDArray[Any]:
        return scale.inside(table.column("value"))

    def training_task(self, loaded: LoadedText, table: Table, recipe: Recipe) -> Numbers:
        return Numbers(
            loaded.tokenizer.pad_token_id,
            self.output_names(table),
            scale=loaded.scale,
            huber=recipe.train.huber,
        )

    def fit_probe(self, features: Floats, labels: Floats, seed: int) -> Probe:
        return fit_ridge(features, labels, seed=seed)

    def save(self, folder: Path, fitted: FittedModel) -> None:
        """Write the plain model with the scale folded into its last layer."""
        import torch

        loaded = loaded_text(fitted.training_plan)
        network, head, scale = loaded.network, loaded.network.head, loaded.scale
        weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
        with torch.no_grad():
            head.weight.copy_(weight.double() * scale.std)
            head.bias.copy_(bias.double() * scale.std + scale.mean)
            network.save(folder, loaded.tokenizer)
            head.weight.copy_(weight)
            head.bias.copy_(bias)

    def from_saved(self, raw: Floats, scale: Scale) -> Floats:
        return np.asarray((raw.astype(np.float64) - scale.mean) / scale.std)

    def constant_outputs(self, labels: Floats, n: int) -> Floats:
        """The mean of the training rows."""
        return np.full((n, 1), float(labels.astype(np.float64).mean()))

    def score_inputs(self, answers: RawOutputs, recipe: Recipe, scale: Scale) -> NumberOutputs:
        raw = answers.raw[:, 0].astype(np.float64)
        labels = answers.labels.astype(np.float64).reshape(len(raw))
        return NumberOutputs(
            answers.rows,
            scale.outside(labels),
            scale.outside(raw),
            number_losses(raw - labels, recipe.train.huber),
            answers.groups,
        )

    def score(self, outputs: NumberOutputs, names: tuple[str, ...]) -> Scores:
        return score_numbers(outputs)

    def compare(self, first: NumberOutputs, second: NumberOutputs) -> dict[str, Any]:
        one, two = (np.abs(outputs.answers - outputs.labels) for outputs in (first, second))
        return compare_losses(one, two, first.units, metric="mae")

    def hardest(
        self, outputs: NumberOutputs, texts: list[str], names: tuple[str, ...]
    ) -> dict[str, list[dict[str, Any]]]:
        """The largest errors; a number has no confidence."""

        def entry(i: int) -> dict[str, Any]:
            return {
                "text": texts[i],
                "label": format_number(outputs.labels[i], 10),
                "prediction": format_number(outputs.answers[i]),
                "confidence": None,
                "loss": float(outputs.losses[i]),
            }

        return hardest_rows(outputs.rows, outputs.losses, None, entry)

    def predictions(self, outputs: NumberOutputs, names: tuple[str, ...]) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "row": pa.array(outputs.rows, pa.int64()),
            "label": pa.array([format_number(v, 10) for v in outputs.labels], pa.string()),
            "prediction": pa.array([format_number(v) for v in outputs.answers], pa.string()),
            "loss": pa.array(outputs.losses, pa.float64()),
            "error": pa.array(outputs.answers - outputs.labels, pa.float64()),
        }

    def decisions(self, scale: Scale) -> tuple[Decision, ...]:
        because = (
            f"trained in deviations from the training rows' mean {scale.mean:.6g}, in "
            "units of their standard deviation; the saved model predicts in your unit"
        )
        return (Decision("unit of the numbers", f"{scale.std:.6g}", because),)


LABEL_TYPE = NumberLabelType()
