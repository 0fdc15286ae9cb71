"""Testing a served model again: an alarm where it is worse than promised, and silence where not."""

from __future__ import annotations

import numpy as np
from scipy import stats

from holdfast.plugins.update.retest import retest


def test_a_model_that_keeps_its_promise_raises_no_alarm_however_long_one_looks() -> None:
    rng = np.random.default_rng(0)
    alarms = sum(retest(rng.random(800) < 0.9, 0.9).alarm for _ in range(120))
    assert stats.binomtest(alarms, 120, 0.05, alternative="greater").pvalue > 0.01


def test_a_fall_is_seen_at_the_row_at_which_it_was_first_sure() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(600) < 0.7
    found = retest(right, 0.85)
    assert found.alarm
    assert found.since is not None
    assert found.since < 400
    # Looked at row by row, it is the same row: what comes later changes nothing.
    assert retest(right[: found.since + 1], 0.85).since == found.since
    assert not retest(right[: found.since], 0.85).alarm
    assert found.value == right.mean()
    assert "shown to be below" in found.because


def test_nothing_to_test_is_said() -> None:
    assert retest([], 0.9).because == (
        "not re-tested: there are no labelled rows that it was not trained on"
    )
    assert not retest([True], None).alarm
