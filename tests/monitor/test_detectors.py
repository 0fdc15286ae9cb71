"""Each detector where it should speak: the fault planted, the label or the cause read off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from holdfast.core.records import Finding
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.detectors.data import few_rows
from holdfast.monitor.detectors.memory import spearman
from holdfast.monitor.detectors.progress import underfit
from holdfast.monitor.history import History
from holdfast.monitor.judge import judge

CHANCE = float(np.log(2))
FALLING = [CHANCE, 0.55, 0.45, 0.38, 0.33, 0.28]
FLAT = [CHANCE, 0.5, 0.42, 0.40, 0.40, 0.40]
RISING = [CHANCE, 0.45, 0.40, 0.44, 0.52, 0.60]
PLAN = RunFacts(planned_steps=500, planned_looks=6, classes=2)


def known(**more: object) -> RunFacts:
    return dataclasses.replace(PLAN, **more)


def names(verdict) -> set[str]:
    return {evidence.name for evidence in verdict.evidence}


def test_a_fall_that_is_steep_at_the_end_of_the_plan_is_underfit_and_learning_before(history):
    valid = [CHANCE, 0.60, 0.52, 0.45, 0.39, 0.33]
    snapshots = history(FALLING, valid)
    assert judge(snapshots, PLAN).label == "underfit"
    assert judge(snapshots, known(planned_steps=5000)).label == "learning"
    assert judge(snapshots).label == "learning"


def test_a_fall_between_two_evaluations_is_not_called_a_fall_at_the_end(history):
    """A run may fall at first and then no more: nothing between start and end tells."""
    both = [8.0, 0.6]
    verdict = judge(history(both, both), known(planned_steps=100))
    assert verdict.label != "underfit"
    # The second is at the start of the second half, the third a quarter before the end.
    late = [8.0, 4.0, 0.6]
    assert "since step 100" in judge(history(late, late), known(planned_steps=200)).because
    early = [8.0, 0.7, 0.6, 0.6, 0.6]
    assert judge(history(early, early), known(planned_steps=400)).label != "underfit"


@pytest.mark.parametrize("flat", [[0.40, 0.40], [0.40, 0.403]])
def test_a_short_run_that_fell_only_at_first_is_not_learning(history, flat):
    losses = [CHANCE, 0.40, *flat]
    verdict = judge(history(losses, losses, noise=0.02), known(planned_steps=300))
    assert verdict.label == "healthy"
    falling = [CHANCE, 0.5, 0.45, 0.40]
    verdict = judge(history(falling, falling, noise=0.02), known(planned_steps=3000))
    assert verdict.label == "learning"


def test_a_run_that_ends_at_the_class_frequencies_is_underfit(classified):
    snapshots = classified([0.1] * 6, [0.0] * 6, train=[CHANCE] * 6)
    verdict = judge(snapshots, PLAN)
    assert verdict.label == "underfit"
    assert "class frequencies" in verdict.because


@pytest.mark.parametrize(("share", "word"), [(0.988, "hardly"), (1.01, "not")])
def test_no_loss_below_that_of_the_class_frequencies_is_called_no_better(classified, share, word):
    snapshots = classified([0.1] * 6, [0.0] * 6, train=[CHANCE] * 5 + [share * CHANCE])
    seen = History(tuple(snapshots), PLAN)
    assert seen.chance is not None
    symptom = underfit(seen)
    assert symptom is not None
    loss = seen.probe_means[-1]
    last = f"ends at {loss:.3f}, {word} better than always predicting the class frequencies"
    assert symptom.because.endswith(f"{last} ({seen.chance:.3f})")


def test_a_run_that_ends_worse_than_a_linear_probe_is_underfit(history):
    snapshots = history([CHANCE] + [0.5] * 5, [CHANCE] + [0.5] * 5)
    reference = snapshots[-1].valid_losses - 0.1
    verdict = judge(snapshots, known(probe_valid_losses=reference))
    assert verdict.label == "underfit"
    assert "linear probe" in verdict.because


@pytest.mark.parametrize("usual", [(1e-3, 1e-2), None])
def test_a_slow_straight_fall_at_the_end_of_the_plan_has_too_low_a_rate(history, usual):
    line = [0.70, 0.68, 0.66, 0.64, 0.62, 0.60]
    verdict = judge(history(line, line), known(usual_rates=usual, peak_rate=3e-5))
    assert verdict.label == "underfit"
    assert verdict.cause == "the learning rate is too low"
    assert any("learning_rate" in s for remedy in verdict.remedies for s in remedy.set)


def test_a_rate_above_the_usual_ones_is_the_cause_of_overfitting(history):
    verdict = judge(history(FALLING, RISING), known(usual_rates=(1e-7, 1e-6)))
    assert (verdict.label, verdict.cause) == ("overfit", "the learning rate is too high")
    assert "learning_rate" in names(verdict)


def test_a_train_probe_that_jumps_up_between_looks_blames_the_rate(history):
    train = [0.5, 0.3, 0.6, 0.25, 0.15, 0.10]
    verdict = judge(history(train, RISING), PLAN)
    assert (verdict.label, verdict.cause) == ("overfit", "the learning rate is too high")


def test_few_rows_and_a_large_model_are_named_where_the_probe_and_the_counts_say_so(history):
    late = [CHANCE, 0.60, 0.52, 0.45, 0.40, 0.52]
    few = judge(history(FALLING, late), known(probe_curve=((50, 0.6), (100, 0.45))))
    assert (few.label, few.cause) == ("overfit", "too few rows")
    large = judge(history(FALLING, late), known(trainable=10**9, train_rows=100))
    assert (large.label, large.cause) == ("overfit", "too large a model for these rows")


@pytest.mark.parametrize(("loss", "blames"), [(0.05, False), (0.2, True)])
def test_a_solved_task_needs_no_more_rows(history, loss, blames):
    facts = known(probe_curve=((50, 1.4 * loss), (100, loss)))
    seen = History(tuple(history([loss] * 6, [loss] * 6)), facts)
    assert (few_rows(seen) is not None) == blames


def test_training_on_for_nothing_is_memorizing(history):
    train = [CHANCE, 0.3, 0.05, 0.005, 0.001, 0.0005]
    verdict = judge(history(train, [CHANCE, 0.42, 0.40, 0.40, 0.40, 0.40], noise=0.02), PLAN)
    assert verdict.label == "memorizing", verdict.because
    assert verdict.since_step in (200, 300)
    assert verdict.remedies[0].do == "train only up to the best step"


def test_validation_below_the_train_probe_leaks(history):
    verdict = judge(history(FLAT, [0.3 * loss for loss in FLAT]), PLAN)
    assert verdict.label == "leaking"
    assert verdict.cause is not None
    assert "known from training" in verdict.cause


def test_twins_in_training_leak_and_a_few_do_not(history):
    assert judge(history(FALLING, FLAT), known(copied_valid=(20, 200))).label == "leaking"
    assert judge(history(FALLING, FLAT), known(copied_valid=(3, 200))).label != "leaking"


def test_targets_that_are_their_source_leak_with_the_copying_rate(history):
    found = Finding("target_is_source", "warn", 0.97, 97, (), "copies", "look")
    verdict = judge(history(FALLING, FALLING), known(findings=(found,), task="seq2seq"))
    assert (verdict.label, verdict.cause) == ("leaking", "the targets copy the source")
    assert verdict.evidence[0].value == pytest.approx(0.97)


def test_a_general_probe_that_gets_worse_is_forgetting(history):
    general = [2.0, 2.0, 2.1, 2.2, 2.3, 2.4]
    verdict = judge(history(FALLING, FLAT, general_loss=general), PLAN)
    assert verdict.label == "forgetting"
    assert verdict.since_step == 300


def test_a_rise_that_a_few_general_rows_make_is_not_forgetting(history):
    """The mean is high enough twice, and the interval over the rows holds 0."""
    general = [2.0, 2.0, 2.1, 2.2, 2.3, 2.4]
    for spread, label in ((0.1, "forgetting"), (6.0, "healthy")):
        rows = np.random.default_rng(0).normal(0, 1, 40)
        rows = (rows - rows.mean()) / rows.std()
        looks = [
            dataclasses.replace(s, general_loss=mean, general_losses=mean + spread * i * rows / 5)
            for i, (s, mean) in enumerate(zip(history(FALLING, FLAT), general, strict=True))
        ]
        verdict = judge(looks, PLAN)
        assert (verdict.label == "forgetting") == (label == "forgetting"), spread
    assert verdict.label != "forgetting"


def test_rows_that_were_seen_first_and_fitted_most_are_named_as_the_cause(history):
    snapshots = history(FALLING, RISING)
    fall = snapshots[-1].train_losses - snapshots[0].train_losses
    seen = np.argsort(np.argsort(fall))
    verdict = judge(snapshots, known(first_seen=seen + 1, planned_steps=5000))
    assert "rank_correlation_first_seen_with_loss_left" not in names(verdict)
    late = history(FALLING, [CHANCE, 0.60, 0.52, 0.45, 0.40, 0.52])
    fall = late[-1].train_losses - late[0].train_losses
    seen = np.argsort(np.argsort(fall)) + 1
    assert judge(late, known(first_seen=seen)).cause == (
        "rows used first are fitted more than rows used later"
    )


def test_a_run_that_has_learned_next_to_nothing_blames_no_order_of_rows(history):
    """On 400 rows of a set that MiniLM cannot tell apart the losses moved by 0.001, in order."""
    idle = history([CHANCE, 0.99 * CHANCE, 0.985 * CHANCE, 0.98 * CHANCE], [CHANCE] * 4)
    fall = idle[-1].train_losses - idle[0].train_losses
    seen = np.argsort(np.argsort(fall)) + 1
    verdict = judge(idle, known(first_seen=seen))
    assert verdict.label == "inconclusive"
    assert verdict.cause != "rows used first are fitted more than rows used later"


def test_spearmans_interval_is_around_scipys_value() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = 0.5 * x + rng.normal(size=200)
    rho, low, high = spearman(x, y, 0.95)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert low < rho < high
    assert np.isnan(spearman(np.ones(5), x[:5])).all()


@pytest.mark.parametrize(
    ("share", "label", "cause"),
    [
        ({"wrong_training_answer": 0.6}, "memorizing", "verbatim"),
        ({"collapsed": 0.9}, "underfit", "collapse"),
        ({"repetition": 0.5}, "underfit", "repeat"),
        ({"source_copied": 0.8}, "underfit", "copies its source"),
    ],
)
def test_what_a_model_writes_is_a_label_or_a_cause(history, share, label, cause) -> None:
    snapshots = history(FALLING, [CHANCE, 0.60, 0.52, 0.45, 0.39, 0.33])
    sides = {"train": {"n": 100.0, **share}, "test": {"n": 100.0, **share}}
    last = dataclasses.replace(snapshots[-1], outputs=sides)
    verdict = judge([*snapshots[:-1], last], PLAN)
    if label == "underfit":
        assert verdict.label == "underfit"
    else:
        assert verdict.label in ("memorizing", "underfit")
    assert verdict.cause is not None
    assert cause in verdict.cause
    assert {f"test_share_{name}" for name in share} <= names(verdict)


def test_a_gap_of_the_metric_stands_beside_the_verdict(history):
    snapshots = [
        dataclasses.replace(
            s, train_correct=np.arange(400) < 392, valid_correct=np.arange(400) < 300
        )
        for s in history(FALLING, RISING)
    ]
    verdict = judge(snapshots, PLAN)
    gap = next(e for e in verdict.evidence if e.name == "accuracy_train_probe_above_valid")
    assert gap.value == pytest.approx(0.23)
    assert gap.low is not None
    assert gap.low > 0.15
