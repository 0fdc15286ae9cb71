"""Text classification where a text has a number: regression, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import FittedModel
from holdfast.contract.inference import shown_number
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Floats, Scores
from holdfast.data.table import Table
from holdfast.metrics.comparison import compare_losses
from holdfast.models.encoders.network import REGRESSION
from holdfast.models.probes.linear import fit_ridge
from holdfast.models.probes.probe import Probe
from holdfast.recipe import Recipe
from holdfast.tasks.labels.base import LoadedText, ProblemAnswers, loaded_text
from holdfast.tasks.number.losses import Numbers, Scale, number_losses
from holdfast.tasks.number.scores import NumberOutputs, score_numbers

SHOWN = 20


class OneNumber:
    """One output, learnt in deviations of the training rows, saved in the user's unit."""

    kind = "number"
    problem = REGRESSION
    plain = "training mean"

    def outputs(self, table: Table) -> tuple[str, ...]:
        return (str(table.columns.label),)

    def scale(self, table: Table) -> Scale:
        values = table.column("value")
        std = float(values.std())
        if not std > 0:
            raise DataError(
                table.source,
                "has training rows of one number only, so there is nothing to learn",
                float(values[0]),
                "Choose another column with --label.",
            )
        return Scale(float(values.mean()), std)

    def labels(self, table: Table, scale: Scale) -> npt.NDArray[Any]:
        return scale.inside(table.column("value"))

    def task(self, loaded: LoadedText, table: Table, recipe: Recipe) -> Numbers:
        return Numbers(
            loaded.tokenizer.pad_token_id,
            self.outputs(table),
            scale=loaded.scale,
            huber=recipe.train.huber,
        )

    def fit(self, features: Floats, labels: Floats, seed: int) -> Probe:
        return fit_ridge(features, labels, seed=seed)

    def save(self, folder: Path, fitted: FittedModel) -> None:
        """Write the plain model with the scale folded into its last layer."""
        import torch

        loaded = loaded_text(fitted.ready)
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

    def constant(self, labels: Floats, n: int) -> Floats:
        """The mean of the training rows."""
        return np.full((n, 1), float(labels.astype(np.float64).mean()))

    def make(self, answers: ProblemAnswers, recipe: Recipe, scale: Scale) -> NumberOutputs:
        raw = answers.raw[:, 0].astype(np.float64)
        labels = answers.labels.astype(np.float64).reshape(len(raw))
        return NumberOutputs(
            answers.rows,
            scale.outside(labels),
            scale.outside(raw),
            number_losses(raw - labels, recipe.train.huber),
            answers.groups,
        )

    def score(self, made: NumberOutputs, names: tuple[str, ...]) -> Scores:
        return score_numbers(made)

    def compare(self, first: NumberOutputs, second: NumberOutputs) -> dict[str, Any]:
        one, two = (np.abs(made.answers - made.labels) for made in (first, second))
        return compare_losses(one, two, first.units, metric="mae", what="error")

    def hardest(
        self, made: NumberOutputs, texts: list[str], names: tuple[str, ...]
    ) -> dict[str, list[dict[str, Any]]]:
        """The largest errors; a number has no confidence."""
        places = np.lexsort((made.rows, -made.losses))[:SHOWN]
        return {
            "loss": [
                {
                    "row": int(made.rows[i]),
                    "text": texts[i],
                    "label": shown_number(made.labels[i], 10),
                    "prediction": shown_number(made.answers[i]),
                    "confidence": None,
                    "loss": float(made.losses[i]),
                }
                for i in places
            ],
            "confidently_wrong": [],
        }

    def predictions(self, made: NumberOutputs, names: tuple[str, ...]) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "row": pa.array(made.rows, pa.int64()),
            "label": pa.array([shown_number(v, 10) for v in made.labels], pa.string()),
            "prediction": pa.array([shown_number(v) for v in made.answers], pa.string()),
            "loss": pa.array(made.losses, pa.float64()),
            "error": pa.array(made.answers - made.labels, pa.float64()),
        }

    def told(self, scale: Scale) -> tuple[Decision, ...]:
        because = (
            "the numbers are learnt as deviations from the training rows' mean "
            f"{scale.mean:.6g} in units of their standard deviation; the saved model gives them "
            "in your unit"
        )
        return (Decision("unit of the numbers", f"{scale.std:.6g}", because),)


PROBLEM = OneNumber()
