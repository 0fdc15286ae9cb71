"""Scores row by row: their mean is the metric, their variance the jackknife's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, r2_score

from holdfast.metrics.comparison import bits_rows, entity_rows, number_rows, right_rows, set_rows


def test_their_means_are_the_metrics() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    assert right_rows(logits, labels).mean() == accuracy_score(labels, logits.argmax(axis=1))
    truth, holds = rng.random((50, 5)) < 0.4, rng.random((50, 5)) < 0.5
    micro = f1_score(truth, holds, average="micro")
    assert set_rows(holds, truth.astype(np.float32)).mean() == pytest.approx(micro)
    numbers, answers = rng.normal(size=50), rng.normal(size=50)
    assert number_rows(answers, numbers).mean() == pytest.approx(r2_score(numbers, answers))
    counts = np.array([[1, 2, 2], [0, 1, 0], [3, 3, 4.0]])
    assert entity_rows(counts).mean() == pytest.approx(2 * 4 / (6 + 6))
    nats, sizes = rng.random(9) * 30, rng.integers(5, 40, 9)
    assert bits_rows(nats, sizes).mean() == pytest.approx(nats.sum() / np.log(2) / sizes.sum())


def test_what_is_undefined_is_no_number() -> None:
    assert np.isnan(number_rows(np.ones(3), np.ones(3))).all()
