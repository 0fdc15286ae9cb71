"""Multi-label text classification: outputs, scores, and what differs from one class a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import FittedModel
from holdfast.contract.inference import label_names
from holdfast.core.records import Decision, Floats, Ints, Scores
from holdfast.data.labels.bins import label_matrix
from holdfast.data.table import Table
from holdfast.metrics.comparison import compare_losses
from holdfast.metrics.resample import RESAMPLES, ResampledUnits, Resampling, undefined
from holdfast.metrics.score import rate_estimate
from holdfast.models.encoders.network import MULTI_LABEL
from holdfast.models.probes.probe import Probe, fit_labels, frequency_logits
from holdfast.recipe import Recipe
from holdfast.tasks.hardest import hardest_rows
from holdfast.tasks.labels.base import LoadedText, RawOutputs
from holdfast.tasks.labels.losses import LabelSets, set_losses
from holdfast.tasks.number.losses import Scale
from holdfast.tasks.rates import f1_of, rate_estimates, rates_by_name, with_each

AVERAGES = ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "loss")
NEVER = "no row here has a label or gets one predicted"


@dataclass(frozen=True, slots=True)
class SetOutputs:
    """A model's outputs for some rows: ``labels`` and ``logits`` [n, labels], ``losses`` [n] the
    mean binary cross-entropy in nats. A label is predicted where its logit is above 0.
    """

    rows: Ints
    labels: npt.NDArray[np.bool_]
    logits: Floats
    losses: Floats
    groups: npt.NDArray[Any] | None = None

    @property
    def answers(self) -> npt.NDArray[np.bool_]:
        """Which labels each row is predicted to have, [n, labels]."""
        return np.asarray(self.logits > 0)

    @property
    def probabilities(self) -> Floats:
        """The probability of each label by itself, float64, [n, labels]."""
        from scipy.special import expit

        return np.asarray(expit(self.logits.astype(np.float64)))

    @property
    def confidence(self) -> Floats:
        """The lowest confidence among a row's yes and no predictions, [n], from 0.5 to 1."""
        chances = self.probabilities
        return np.asarray(np.maximum(chances, 1 - chances).min(axis=1))

    @property
    def units(self) -> ResampledUnits:
        """The resampling unit: rows, or the groups they are in."""
        return ResampledUnits.by(self.groups, len(self.rows))


def score_sets(
    outputs: SetOutputs,
    names: Sequence[str],
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Scores:
    """``f1_micro`` over all (row, label) pairs; ``f1_macro`` the mean over the labels that some row
    has or gets predicted; ``exact_match`` the share of rows whose complete set is correct (Wilson);
    precision and recall over all predictions; ``loss``. ``per_class`` has each label by itself.

    Intervals are BCa over rows, or Student's over groups (``Resampling``). No rows: undefined.
    """
    order = ("f1_micro", "f1_macro", "exact_match", "precision_micro", "recall_micro", "loss")
    if not len(outputs.rows):
        nothing = undefined("there are no rows")
        return Scores(0, dict.fromkeys(order, nothing), {"per_class": {}})
    k, drawing = len(names), Resampling(outputs.units, seed, level, resamples)
    counted = (outputs.labels & outputs.answers, outputs.labels, outputs.answers)
    counts = np.concatenate([part.astype(np.float64) for part in counted], axis=1)
    rows = np.column_stack([counts, outputs.losses, np.ones(len(outputs.rows))])
    why = NEVER, "no row here has the label or gets it predicted"
    metrics, each = rate_estimates(
        drawing, rows, lambda totals: _values(totals, k), AVERAGES, why, "label sets"
    )
    exact = (outputs.labels == outputs.answers).all(axis=1)
    metrics["exact_match"] = rate_estimate(exact, outputs.units, level)
    per_class = rates_by_name(names, outputs.labels.sum(axis=0), each)
    ordered = {name: metrics[name] for name in order}
    return Scores(len(outputs.rows), ordered, {"per_class": per_class})


def _values(totals: Floats, k: int) -> Floats:
    """[resamples, 5 averages + 3 × labels] of sums [resamples, 3 × labels + 2]: correct, labelled
    and predicted rows of each label, the loss, and rows.
    """
    hits, labelled, predicted = (totals[:, i * k : (i + 1) * k] for i in range(3))
    each = f1_of(hits, labelled, predicted)
    some, known = np.isfinite(each), np.isfinite(each).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        all_hits = hits.sum(axis=1)
        averages = [
            f1_of(all_hits, labelled.sum(axis=1), predicted.sum(axis=1)),
            np.where(some, each, 0).sum(axis=1) / known,
            all_hits / predicted.sum(axis=1),
            all_hits / labelled.sum(axis=1),
            totals[:, -2] / totals[:, -1],
        ]
    return with_each(averages, hits, labelled, predicted)


class MultiLabelType:
    """Several labels a text: one yes or no for each label."""

    label_kind = "several"
    problem_type = MULTI_LABEL
    baseline_name = "majority class"

    def output_names(self, table: Table) -> tuple[str, ...]:
        return table.names

    def scale(self, table: Table) -> Scale:
        return Scale()

    def labels(self, table: Table, scale: Scale) -> npt.NDArray[Any]:
        return label_matrix(table)

    def training_task(self, loaded: LoadedText, table: Table, recipe: Recipe) -> LabelSets:
        return LabelSets(loaded.tokenizer.pad_token_id, table.names)

    def fit_probe(self, features: Floats, labels: Floats, seed: int) -> Probe:
        return fit_labels(features, labels, seed=seed)

    def save(self, folder: Path, fitted: FittedModel) -> None:
        fitted.network.save(folder, fitted.training_plan.loaded.tokenizer)

    def from_saved(self, raw: Floats, scale: Scale) -> Floats:
        return raw

    def constant_outputs(self, labels: Floats, n: int) -> Floats:
        """The training frequencies of the labels; labels of more than half of the rows are
        predicted.
        """
        return np.tile(frequency_logits(labels), (n, 1))

    def score_inputs(self, answers: RawOutputs, recipe: Recipe, scale: Scale) -> SetOutputs:
        losses = set_losses(answers.raw, answers.labels)
        return SetOutputs(answers.rows, answers.labels > 0.5, answers.raw, losses, answers.groups)

    def score(self, outputs: SetOutputs, names: tuple[str, ...]) -> Scores:
        return score_sets(outputs, names)

    def compare(self, first: SetOutputs, second: SetOutputs) -> dict[str, Any]:
        return compare_losses(first.losses, second.losses, first.units)

    def hardest(
        self, outputs: SetOutputs, texts: list[str], names: tuple[str, ...]
    ) -> dict[str, list[dict[str, Any]]]:
        """The largest losses, and the wrong sets with the highest confidence."""
        wrong = (outputs.labels != outputs.answers).any(axis=1)
        labelled, predicted = (
            label_names(outputs.labels, names),
            label_names(outputs.answers, names),
        )

        def entry(i: int) -> dict[str, Any]:
            return {
                "text": texts[i],
                "label": ", ".join(labelled[i]) or "none",
                "prediction": ", ".join(predicted[i]) or "none",
                "confidence": float(outputs.confidence[i]),
                "loss": float(outputs.losses[i]),
            }

        return hardest_rows(outputs.rows, outputs.losses, (outputs.confidence, wrong), entry)

    def predictions(self, outputs: SetOutputs, names: tuple[str, ...]) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "row": pa.array(outputs.rows, pa.int64()),
            "label": pa.array(label_names(outputs.labels, names), pa.list_(pa.string())),
            "prediction": pa.array(label_names(outputs.answers, names), pa.list_(pa.string())),
            "loss": pa.array(outputs.losses, pa.float64()),
            "probabilities": pa.array(outputs.probabilities.tolist(), pa.list_(pa.float64())),
        }

    def decisions(self, scale: Scale) -> tuple[Decision, ...]:
        because = "each label has its own prediction, with a loss that favours calibration"
        return (Decision("threshold", "0.5", because),)


LABEL_TYPE = MultiLabelType()
