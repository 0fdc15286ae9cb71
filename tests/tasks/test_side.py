"""The layer over side columns, against scikit-learn and its own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from holdfast.contract.extra_features import (
    ExtraFeaturesLayer,
    fit_extra_features,
    load_extra_features,
)
from holdfast.core.errors import RunError
from holdfast.data.columns.extra import ColumnRequest, fit_column


def test_without_a_text_it_is_scikit_learns_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(200, 4)), rng.integers(0, 3, 200)
    x[labels == 1, 0] += 1.0
    weight, bias = fit_extra_features(x, labels, np.zeros((200, 3)), 0.5)
    oracle = LogisticRegression(C=0.5, tol=1e-8, max_iter=2000).fit(x, labels)
    centred = oracle.coef_ - oracle.coef_.mean(axis=0)
    assert weight - weight.mean(axis=0) == pytest.approx(centred, abs=2e-3)
    assert bias == pytest.approx(oracle.intercept_ - oracle.intercept_.mean(), abs=2e-3)


def test_what_the_text_says_already_is_left_to_it() -> None:
    """Where the text's logits are those that made the labels, a copy of them adds nothing."""
    rng = np.random.default_rng(1)
    score = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-score))).astype(np.int64)
    text = np.column_stack([np.zeros(4000), score])
    weight, _ = fit_extra_features(score[:, None], labels, text, 1.0)
    assert abs(weight[1, 0] - weight[0, 0]) < 0.1
    alone, _ = fit_extra_features(score[:, None], labels, np.zeros((4000, 2)), 1.0)
    assert alone[1, 0] - alone[0, 0] > 0.9


def test_a_folder_gives_the_layer_again_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    column = fit_column(ColumnRequest("shop"), ["a"] * 4 + ["b"] * 4)
    layer = ExtraFeaturesLayer(
        (column,), ("x", "y"), np.array([[0.1, 0.2], [0.3, 0.4]]), np.ones(2), 0.7
    )
    layer.save(tmp_path / "features")
    again = load_extra_features(tmp_path / "features")
    assert again.columns == (column,)
    assert again.weight == pytest.approx(layer.weight)
    assert (again.scale, again.classes) == (0.7, ("x", "y"))
    (tmp_path / "features" / "features.json").write_text("{}")
    with pytest.raises(RunError, match="cannot be read"):
        load_extra_features(tmp_path / "features")
