"""Weights of groups, against scikit-learn's sample weights of the joint classes."""

from __future__ import annotations

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from holdfast.tasks.classes.row_weights import MOST, reweighed


def test_every_class_has_the_same_share_of_the_weight_in_every_group() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 600)
    labels = (rng.random(600) < np.array([0.2, 0.5, 0.8])[groups]).astype(np.int64)
    weights = reweighed(groups, labels)
    assert np.isclose(weights.mean(), 1)
    shares = [np.average(labels[groups == g], weights=weights[groups == g]) for g in range(3)]
    assert np.allclose(shares, labels.mean())
    # Balanced over the pairs, and then at the rates of groups and of labels.
    joint = compute_sample_weight("balanced", groups * 2 + labels)
    rates = np.bincount(groups)[groups] * np.bincount(labels)[labels]
    assert np.allclose(weights, joint * rates / (joint * rates).mean())


def test_a_rare_pair_weighs_no_more_than_its_limit() -> None:
    groups = np.repeat([0, 1], [500, 500])
    labels = np.concatenate([np.zeros(499), [1], np.ones(500)]).astype(np.int64)
    weights = reweighed(groups, labels)
    assert weights.max() / np.median(weights) <= 2 * MOST
    assert np.isclose(weights.mean(), 1)
