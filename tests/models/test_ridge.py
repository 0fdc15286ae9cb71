"""The closed-form probe against scikit-learn's ridge, fold by fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from holdfast.models.probes.transferability import SHARES, ridge_out_of_fold


@pytest.mark.parametrize(("n", "width"), [(80, 10), (40, 90)])
def test_each_row_is_answered_by_a_ridge_of_the_other_folds(n: int, width: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, width)) + 2
    targets = features[:, :3] + rng.normal(size=(n, 3))
    folds = rng.integers(0, 4, n)
    found = ridge_out_of_fold(features, targets, folds)
    errors = []
    for share in SHARES:
        said = np.zeros_like(targets)
        for fold in range(4):
            inside = features[folds != fold]
            strength = share * inside.var(axis=0).mean() * len(inside)
            fitted = Ridge(alpha=strength).fit(inside, targets[folds != fold])
            said[folds == fold] = fitted.predict(features[folds == fold])
        errors.append(((said - targets) ** 2).mean())
        if share == found.share:
            assert found.predictions == pytest.approx(said, abs=1e-8)
    assert found.share == SHARES[int(np.argmin(errors))]


def test_features_without_variance_answer_the_mean_of_the_others() -> None:
    targets = np.arange(6.0)[:, None]
    folds = np.array([0, 0, 1, 1, 2, 2])
    found = ridge_out_of_fold(np.ones((6, 4)), targets, folds)
    assert found.predictions[:, 0] == pytest.approx([3.5, 3.5, 2.5, 2.5, 1.5, 1.5])
