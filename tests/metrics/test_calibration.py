from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from holdfast.core.records import Outputs
from holdfast.metrics.reliability import calibrate, reliability
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


def test_rows_that_prove_a_temperature_harmful_keep_their_logits() -> None:
    found = [calibrate(make(1.0, n=60, seed=seed)) for seed in range(40)]
    left = [one for one in found if one.temperature == 1.0]
    assert 0 < len(left) < 20
    assert all(one.loss_after > one.loss_before for one in left)
    assert all("does harm (paired t-test, p < 0.05)" in one.because for one in left)
    assert all(one.decision.chosen == "1.000" for one in left)


def test_few_rows_that_are_too_sure_are_made_modest_although_they_prove_nothing() -> None:
    found = [calibrate(make(4.0, n=12, seed=seed)).temperature for seed in range(20)]
    assert np.mean(np.array(found) > 1) > 0.8
    assert 1.0 not in found


def test_what_harms_is_judged_by_units_and_not_by_rows() -> None:
    """Rows of 20 groups prove nothing, however many they are."""
    plain = [make(1.0, n=60, seed=seed) for seed in range(40)]
    dropped = [one for one in plain if calibrate(one).temperature == 1.0]
    assert dropped
    for one in dropped:
        copies = np.repeat(np.arange(20), 3)
        assert calibrate(replace(one, groups=copies)).temperature != 1.0


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
