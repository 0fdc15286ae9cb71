"""What is said of overfitting: by the loss that rose, and where the answers cannot tell."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from holdfast.core.records import Verdict
from holdfast.core.run_facts import LabelNoise, RunFacts
from holdfast.monitor.detectors.memory import as_good_as_now
from holdfast.monitor.history import History
from holdfast.monitor.judge import judge

PLAN = RunFacts(planned_steps=500, planned_looks=6, classes=2)


def value(verdict: Verdict, name: str) -> Any:
    return next(one for one in verdict.evidence if one.name == name)


def test_the_loss_that_rose_gives_the_step_the_rise_and_its_p(classified) -> None:
    """Surer and surer answers: the raw loss turns at step 100, the calibrated one at step 300."""
    rises = classified([0.5, 2, 4, 8, 16, 24], [0, 1.0, 1.2, 1.5, 1.1, 0.9])
    raw = judge(rises, PLAN)
    assert (raw.label, raw.since_step) == ("overfit", 200)
    means = [float(look.valid_losses.mean()) for look in rises]
    told = f"The raw validation loss is {means[-1] - means[1]:.3f} above its lowest value (step 100"
    assert raw.because.startswith(told), raw.because
    assert "while the training loss did not rise" in raw.because
    assert value(raw, "share_of_the_run_beyond_the_best").value == pytest.approx(0.8)

    # Ever less sure ones, which know less: only the calibrated loss rises, from step 100 on.
    hidden = judge(classified([20, 12, 6, 3, 2, 1.2], [1.0, 1.5, 1.5, 1.3, 1.2, 1.1]), PLAN)
    assert (hidden.label, hidden.since_step) == ("overfit", 200)
    assert "calibrated validation loss" in hidden.because
    assert "above its lowest value (step 100" in hidden.because
    p_values = [value(one, "p_value_above_best").value for one in (raw, hidden)]
    assert max(p_values) < 0.01, "the p-value of the loss that rose, not of the other"


def test_without_training_rows_nothing_is_said_of_them(classified) -> None:
    rises = classified([0.5, 2, 4, 8, 16, 24], [0, 1.0, 1.2, 1.5, 1.1, 0.9])
    bare = [
        dataclasses.replace(look, train_losses=np.zeros(0), train_correct=None) for look in rises
    ]
    verdict = judge(bare, PLAN)
    assert verdict.label == "overfit"
    assert "training loss" not in verdict.because


@pytest.mark.parametrize(
    ("right", "scale", "label"),
    [
        (0.88, 4.0, "overfit"),  # 82 % of what the best had gained is lost again
        (0.88, 3.0, "inconclusive"),  # 41 %
        (0.84, 4.0, "miscalibrated"),  # the gap of right answers is surely small
    ],
)
def test_where_rows_cannot_tell_the_gap_a_lost_gain_decides(
    classified, right: float, scale: float, label: str
) -> None:
    looks = classified([0.5, 1, 1.5, 2, scale, scale], [0, 1.2, 1.2, 1.2, 1.2, 1.2], n=200)
    train = np.arange(200) < 200 * right
    verdict = judge([dataclasses.replace(look, train_correct=train) for look in looks], PLAN)
    assert verdict.label == label, verdict.because


@pytest.mark.parametrize(
    ("right", "label", "cause"),
    [(0.84, "noisy_labels", "wrong labels"), (0.88, "overfit", "wrong labels")],
)
def test_a_few_wrong_labels_are_the_cause_of_overfitting_and_the_verdict_of_another_rise(
    classified, right: float, label: str, cause: str
) -> None:
    """Without them the two runs are miscalibrated and overfit."""
    looks = classified([0.5, 1, 1.5, 2, 4, 4], [0, 1.2, 1.2, 1.2, 1.2, 1.2], n=200)
    train = np.arange(200) < 200 * right
    noise = LabelNoise(rate=0.08, low=0.06, high=0.10, right=0.9, base=0.5, n=800)
    known = dataclasses.replace(PLAN, label_noise=noise)
    verdict = judge([dataclasses.replace(look, train_correct=train) for look in looks], known)
    assert (verdict.label, verdict.cause) == (label, cause), verdict.because


def test_more_and_fewer_passes_are_advised_where_the_run_has_not_shown_the_contrary(
    history,
) -> None:
    def passes(verdict: Verdict) -> list[float]:
        settings = [s for remedy in verdict.remedies for s in remedy.set]
        return [float(s.partition("=")[2]) for s in settings if s.startswith("train.epochs=")]

    falling = [0.69, 0.55, 0.45, 0.38, 0.33, 0.28]
    rising = [0.69, 0.45, 0.40, 0.44, 0.52, 0.60]
    assert passes(judge(history(falling, rising), PLAN)) == [2.0], "that of the best evaluation"
    # Five passes are over, of fifty that are planned.
    far = dataclasses.replace(PLAN, planned_steps=5000)
    assert passes(judge(history(falling, [0.69, 0.60, 0.52, 0.45, 0.39, 0.33]), far)) == [10.0]
    # The kept checkpoint is of the last of five passes: as many again would change nothing.
    looks = history(falling, rising)
    looks[4] = dataclasses.replace(looks[4], epoch=4.4)
    assert passes(judge(looks, far, kept_step=400)) == [5.0]
    assert not passes(judge(looks, PLAN, kept_step=400))
    # The last one is kept: no length is to blame.
    kept = judge(history(falling, rising), PLAN, kept_step=500)
    assert (kept.label, kept.cause) == ("overfit", "too few rows")
    assert not passes(kept)


def test_the_first_evaluation_that_was_as_good_as_the_last_is_found(history) -> None:
    valid = [0.69, 0.60, 0.5, 0.4, 0.4, 0.65]
    looks = History(tuple(history(valid, valid, noise=0.02)), PLAN)
    assert as_good_as_now(looks) == 1
    assert as_good_as_now(History(looks.snapshots[:-1], PLAN)) == 3


@pytest.mark.parametrize(
    ("rise", "valid_right", "named"), [(0.6, 14, True), (0.6, 40, False), (0.0, 14, False)]
)
def test_a_rise_of_all_rows_but_one_is_named_where_validation_is_far_behind(
    snapshot, rise: float, valid_right: int, named: bool
) -> None:
    """Recorded of a language model: 55 of 60 rows rose, and one that improved by 6.5 nats kept the
    test of the mean from its alarm."""
    rng = np.random.default_rng(5)
    before, after = [3.0, 0.4, 0, 0, 0, 0, 0], [0, 0, 0, 0.2, 0.5, 0.8, 1.0]
    looks = []
    for place in range(7):
        valid = 5.0 + before[place] + rise * after[place] + rng.normal(0, 0.03, 60)
        valid[0] -= 11 * rise * after[place]
        looks.append(
            snapshot(
                50 * place,
                np.full(60, 4.0 - 0.5 * place) + rng.normal(0, 0.05, 60),
                valid,
                train_correct=np.arange(60) < 45,
                valid_correct=np.arange(60) < valid_right,
            )
        )
    verdict = judge(looks, RunFacts(planned_steps=300, planned_looks=7))
    assert (verdict.label == "memorizing") == named, (verdict.label, verdict.because)
    if named:
        assert verdict.since_step == 150
        assert "which is not significant with 60 validation rows" in verdict.because
        assert History(tuple(looks), RunFacts(planned_steps=300)).raw_rise.alarm_at is None


@pytest.mark.parametrize(("rise", "counts"), [(0.08, False), (0.22, True)])
def test_a_rise_of_a_fifth_of_a_nat_counts_however_high_the_loss_is(
    history, rise: float, counts: bool
) -> None:
    """Recorded of a language model: from 4.73 to 4.96, in every row; 5 % of the loss are 0.24."""
    valid = [4.8, 4.73, 4.73 + rise / 4, 4.73 + rise / 2, 4.73 + rise]
    looks = history([4.8, 4.6, 4.3, 4.0, 3.7], valid, noise=0.01)
    verdict = judge(looks, RunFacts(planned_steps=400, planned_looks=5))
    assert (verdict.label == "overfit") == counts, verdict.because
