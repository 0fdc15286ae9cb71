"""Text classification with several labels a text, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import FittedModel
from holdfast.contract.inference import named
from holdfast.core.records import Decision, Floats, Scores
from holdfast.data.table import Table
from holdfast.metrics.comparison import compare_losses
from holdfast.models.encoders.network import MULTI_LABEL
from holdfast.models.probes.linear import fit_labels, frequency_logits
from holdfast.models.probes.probe import Probe
from holdfast.recipe import Recipe
from holdfast.tasks.labels.base import LoadedText, ProblemAnswers
from holdfast.tasks.labels.losses import LabelSets, label_matrix, set_losses
from holdfast.tasks.labels.scores import SetOutputs, score_sets
from holdfast.tasks.number.losses import Scale

SHOWN = 20


class SeveralLabels:
    """One yes or no a label."""

    kind = "several"
    problem = MULTI_LABEL
    plain = "majority class"

    def outputs(self, table: Table) -> tuple[str, ...]:
        return table.names

    def scale(self, table: Table) -> Scale:
        return Scale()

    def labels(self, table: Table, scale: Scale) -> npt.NDArray[Any]:
        return label_matrix(table)

    def task(self, loaded: LoadedText, table: Table, recipe: Recipe) -> LabelSets:
        return LabelSets(loaded.tokenizer.pad_token_id, table.names)

    def fit(self, features: Floats, labels: Floats, seed: int) -> Probe:
        return fit_labels(features, labels, seed=seed)

    def save(self, folder: Path, fitted: FittedModel) -> None:
        fitted.network.save(folder, fitted.ready.loaded.tokenizer)

    def from_saved(self, raw: Floats, scale: Scale) -> Floats:
        return raw

    def constant(self, labels: Floats, n: int) -> Floats:
        """The training frequencies of the labels: those of more than half of the rows hold."""
        return np.tile(frequency_logits(labels), (n, 1))

    def make(self, answers: ProblemAnswers, recipe: Recipe, scale: Scale) -> SetOutputs:
        losses = set_losses(answers.raw, answers.labels)
        return SetOutputs(answers.rows, answers.labels > 0.5, answers.raw, losses, answers.groups)

    def score(self, made: SetOutputs, names: tuple[str, ...]) -> Scores:
        return score_sets(made, names)

    def compare(self, first: SetOutputs, second: SetOutputs) -> dict[str, Any]:
        return compare_losses(first.losses, second.losses, first.units, metric="loss", what="loss")

    def hardest(
        self, made: SetOutputs, texts: list[str], names: tuple[str, ...]
    ) -> dict[str, list[dict[str, Any]]]:
        """The largest losses, and the wrong sets that were given with the most confidence."""
        wrong = (made.labels != made.answers).any(axis=1)
        by_loss = np.lexsort((made.rows, -made.losses))[:SHOWN]
        sure = np.lexsort((made.rows, -made.confidence))
        lists = {"loss": by_loss, "confidently_wrong": sure[wrong[sure]][:SHOWN]}
        shown = [", ".join(labels) or "none" for labels in named(made.labels, names)]
        answered = [", ".join(labels) or "none" for labels in named(made.answers, names)]
        return {
            name: [
                {
                    "row": int(made.rows[i]),
                    "text": texts[i],
                    "label": shown[i],
                    "prediction": answered[i],
                    "confidence": float(made.confidence[i]),
                    "loss": float(made.losses[i]),
                }
                for i in places
            ]
            for name, places in lists.items()
        }

    def predictions(self, made: SetOutputs, names: tuple[str, ...]) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "row": pa.array(made.rows, pa.int64()),
            "label": pa.array(named(made.labels, names), pa.list_(pa.string())),
            "prediction": pa.array(named(made.answers, names), pa.list_(pa.string())),
            "loss": pa.array(made.losses, pa.float64()),
            "probabilities": pa.array(made.probabilities.tolist(), pa.list_(pa.float64())),
        }

    def told(self, scale: Scale) -> tuple[Decision, ...]:
        because = "every label is its own yes or no; the loss makes its probability an honest one"
        return (Decision("threshold", "0.5", because),)


PROBLEM = SeveralLabels()
