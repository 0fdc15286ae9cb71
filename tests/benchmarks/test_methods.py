"""What is said of methods: who goes on, what a gain is worth, and which rows judge."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp


def test_worth_reads_a_logarithmic_curve_backwards() -> None:
    import methods

    points = {100: 70.0, 400: 80.0, 1600: 90.0}
    # Ten points are four times the rows, so five are twice.
    assert methods.worth(points, 400, 5.0) == pytest.approx(400)
    assert methods.worth(points, 400, -5.0) == pytest.approx(-200)
    assert methods.worth(points, 400, 11.0) is None
    assert methods.worth(points, 200, 1.0) is None


def test_a_curve_that_dips_gives_no_worth_below_nothing() -> None:
    import methods

    found = methods.worth({100: 80.0, 400: 79.0, 1600: 84.0}, 400, 0.5)
    assert found is not None
    assert found > 0


def test_holm_steps_down_and_never_falls() -> None:
    import methods

    found = methods.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_the_p_value_is_that_of_the_paired_test() -> None:
    import methods

    gains = [1.2, -0.3, 0.8, 2.0, 0.1]
    assert methods.p_value(gains) == pytest.approx(ttest_1samp(gains, 0).pvalue)


def test_an_arm_goes_on_above_one_standard_error_only() -> None:
    import methods

    assert methods.passes([1.0, 1.2, 0.8])
    assert not methods.passes([3.0, -2.0, 0.5])
    assert not methods.passes([5.0])


def test_many_classes_keep_a_row_to_learn_from() -> None:
    from peers.in_process import judging
    from peers.rows import Rows

    labels = tuple(f"class {i % 30}" for i in range(40))
    rows = Rows(tuple(map(str, range(40))), labels)
    valid = judging(rows, np.arange(40), 10)
    left = {label for i, label in enumerate(labels) if i not in set(valid.tolist())}
    assert len(valid) == 10
    assert len(left) == 30


def test_scores_are_those_of_plain_cross_entropy() -> None:
    import torch
    from peers.in_process import scores

    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    labels = np.random.default_rng(1).integers(0, 4, 50)
    found = scores(logits, labels)
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert found["loss"] == pytest.approx(float(wanted))
    assert found["refined"] <= found["loss"] + 1e-6
