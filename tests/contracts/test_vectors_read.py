"""What a model's last layer read of rows, heard while it answers, for every kind of task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contracts.test_predictors import fitted_of, reloaded, same

from holdfast.analyses.vectors import predict_with_vectors
from holdfast.contract.fit import FittedModel
from holdfast.core.records import Floats
from holdfast.models.encoders.network import masked_mean
from holdfast.runs.predictor import Predictor

__all__ = ["fitted_of"]
WRITERS = ("seq2seq", "causal-lm")


def one_by_one(fitted: FittedModel, examples: Any) -> Floats:
    """The features of each row alone, by the network that was trained: another code, no padding."""
    network: Any = fitted.network.cpu().eval()
    rows = []
    for place in range(len(examples)):
        batch = fitted.training_plan.task.collate(examples, [place])
        given = {k: v for k, v in batch.items() if k in (*network.accepts, "pixel_values")}
        with torch.inference_mode():
            features = network.features(**given)
            if features.dim() == 3:
                features = masked_mean(features, given["attention_mask"])
        rows.append(features[0].numpy())
    return np.stack(rows)


@pytest.mark.slow
def test_the_vector_of_a_row_is_what_its_last_layer_read(
    request: pytest.FixtureRequest, sample: Any, fitted_of: Any, tmp_path: Path
) -> None:
    sample, fitted = fitted_of(request.node.callspec.params["sample"])
    predictor = Predictor(reloaded(fitted, tmp_path / "model"), fitted.recipe.data)
    table = sample.table.take([5, 0, 9, 7, 2, 2])
    answers, vectors = predict_with_vectors(predictor, table)
    alone = predictor.predict_table(table)
    same(answers.predictions, alone.predictions)
    same(answers.confidence, alone.confidence)
    assert vectors is not None
    assert vectors.dtype == np.float32
    assert len(vectors) == len(table)
    np.testing.assert_allclose(vectors[4], vectors[5], rtol=1e-5, atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    if fitted.training_plan.definition.name not in WRITERS:
        network: Any = fitted.network
        if not hasattr(network, "accepts"):
            network.accepts = ()
        examples = fitted.training_plan.definition.encode(
            table, fitted.training_plan.loaded, fitted.recipe
        )
        np.testing.assert_allclose(vectors, one_by_one(fitted, examples), rtol=2e-4, atol=2e-5)
