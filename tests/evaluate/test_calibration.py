from __future__ import annotations

import numpy as np
import pytest

from holdfast.core.records import Outputs
from holdfast.evaluate.calibration import calibrate, reliability
from holdfast.stats.temperature import losses_at


def make(scale: float, n: int = 2000, seed: int = 0, groups=None) -> Outputs:
    """Labels drawn from the softmax of the logits, which are then scaled: the right temperature
    is the scale."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((n, 1)) > np.cumsum(shares, axis=1)).sum(1)
    logits = logits * scale
    return Outputs(np.arange(n), labels, logits, losses_at(logits, labels, 1.0), groups)


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_the_temperature_is_the_scale_of_the_logits(scale: float) -> None:
    found = calibrate(make(scale))
    assert found.temperature == pytest.approx(scale, rel=0.1)
    assert found.loss_after < found.loss_before


def test_calibrated_few_rows_are_mostly_left_alone() -> None:
    kept = [calibrate(make(1.0, n=60, seed=seed)).temperature == 1.0 for seed in range(20)]
    assert np.mean(kept) > 0.5


def test_too_few_rows_are_left_alone_and_say_so() -> None:
    found = calibrate(make(3.0, n=1))
    assert found.temperature == 1.0
    assert "too few" in found.because


def test_calibrated_confidence_meets_accuracy_in_every_bin() -> None:
    for line in reliability(make(1.0, n=20_000))["bins"]:
        assert line["accuracy"] == pytest.approx(line["confidence"], abs=0.05)


def test_groups_stay_in_one_fold() -> None:
    grouped = make(4.0, n=200, groups=np.array([f"g{i % 20}" for i in range(200)]))
    assert calibrate(grouped).temperature == pytest.approx(4.0, rel=0.4)
