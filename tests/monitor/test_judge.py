"""Histories in, labels out."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.core.circumstances import Circumstances
from holdfast.core.records import Verdict
from holdfast.monitor.judge import judge

CHANCE = float(np.log(2))
FALLING = [CHANCE, 0.55, 0.45, 0.38, 0.33, 0.28]
TABLE = [
    ("learning", FALLING, [CHANCE, 0.58, 0.50, 0.45, 0.41, 0.37]),
    ("learning", [CHANCE, 0.5], [CHANCE, 0.55]),
    ("healthy", [CHANCE, 0.5, 0.40, 0.36, 0.35, 0.35, 0.35], [CHANCE, 0.5, 0.42] + [0.40] * 4),
    ("overfit", [CHANCE, 0.4, 0.3, 0.2, 0.1, 0.05], [CHANCE, 0.45, 0.40, 0.44, 0.52, 0.60]),
    ("overfit", [CHANCE, 0.3, 0.1, 0.02], [CHANCE, 0.40, 0.44, 0.50]),
    ("diverging", [CHANCE, 0.4, 0.9, 1.5], [CHANCE, 0.45, 0.9, 1.5]),
    ("diverging", [CHANCE, 0.3, 0.2, 0.69, 0.69], [CHANCE, 0.4, 0.35, 0.69, 0.69]),
    ("inconclusive", [CHANCE] * 6, [CHANCE] * 6),
]


def planned(looks: int) -> Circumstances:
    return Circumstances(planned_looks=looks)


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("known", [True, False])
def test_the_table_of_histories(history, label: str, train: list, valid: list, seed: int,
                                known: bool) -> None:  # fmt: skip
    verdict = judge(history(train, valid, seed=seed), planned(len(train)) if known else None)
    assert verdict.label == label, verdict.because


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
def test_every_verdict_is_one_sentence_with_evidence_and_a_confidence(
    history, label, train, valid
) -> None:
    verdict = judge(history(train, valid))
    assert verdict.because.endswith(".")
    assert verdict.because[0].isupper()
    assert 0 <= verdict.confidence <= 1
    assert (verdict.confidence == 0) == (label == "inconclusive")
    assert verdict.evidence


def test_too_few_rows_say_how_many_would_be_needed(history) -> None:
    train, valid = [CHANCE, 0.4, 0.3, 0.25], [CHANCE, 0.50, 0.42, 0.43]
    verdict = judge(history(train, valid, n=15, noise=0.4, seed=3))
    assert verdict.label == "inconclusive"
    assert "validation rows would settle it" in verdict.because
    needed = {e.name: e.value for e in verdict.evidence}["validation_rows_needed"]
    assert needed is not None
    assert needed > 15


def test_overfit_names_the_step_after_the_best_its_cause_and_runnable_remedies(history) -> None:
    verdict = judge(history(*TABLE[3][1:]))
    assert verdict.since_step == 300
    assert verdict.cause == "trained too long for this much data"
    settings = [line for remedy in verdict.remedies for line in remedy.set]
    assert "train.epochs=2" in settings


def test_a_bad_look_early_is_not_divergence(history) -> None:
    verdict = judge(history([CHANCE, 0.9], [CHANCE, 0.9]))
    assert verdict.label != "diverging" or "validation got worse too" in verdict.because


def test_one_early_peak_that_recovers_is_forgotten(history) -> None:
    verdict = judge(history([CHANCE, 1.0, 0.5, 0.4], [CHANCE, 1.0, 0.55, 0.45]))
    assert verdict.label == "learning"


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_snapshots_claim_nothing(history, count: int) -> None:
    verdict = judge(history(FALLING, FALLING)[:count])
    assert verdict.label == "inconclusive"
    assert verdict.confidence == 0
    assert "2 looks" in verdict.because


def test_no_validation_rows_claim_nothing(snapshot) -> None:
    empty = [snapshot(i, np.full(20, 1.0 - i / 10), np.zeros(0)) for i in range(4)]
    verdict = judge(empty)
    assert verdict.label == "inconclusive"
    assert "no validation rows" in verdict.because


def test_an_empty_train_probe_still_gives_a_verdict(history, snapshot) -> None:
    full = history(*TABLE[3][1:])
    bare = [snapshot(s.step, np.zeros(0), s.valid_losses) for s in full]
    assert judge(bare).label == "overfit"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_loss_that_is_no_number_is_diverging(snapshot, value: float, part: str) -> None:
    train, valid = np.ones(20), np.ones(20)
    broken = np.where(np.arange(20) == 7, value, 1.0)
    last = snapshot(100, broken, valid) if part == "train" else snapshot(100, train, broken)
    verdict = judge([snapshot(0, train, valid), last])
    assert verdict.label == "diverging"
    assert verdict.since_step == 100


def test_growing_confidence_alone_is_not_overfitting(classified, raw) -> None:
    snapshots = classified([0.5, 1, 3, 8, 20], [0.0, 1.5, 1.5, 1.5, 1.5])
    assert judge(raw(snapshots)).label == "overfit"
    refined = judge(snapshots)
    assert refined.label == "miscalibrated", refined.because
    assert refined.since_step == 200


def test_losing_knowledge_is_overfitting_in_the_refined_loss_too(classified) -> None:
    verdict = judge(classified([1, 1, 1, 1], [0.0, 1.5, 1.0, 0.7]))
    assert verdict.label == "overfit"
    assert "after its best temperature" in verdict.because


def test_flat_histories_are_rarely_called_anything_bad_at_any_look(history) -> None:
    """Ten looks at converged, noisy models whose train probe keeps falling."""
    alarms, runs = 0, 40
    for seed in range(runs):
        train = [CHANCE, *np.linspace(0.4, 0.3, 9)]
        snapshots = history(train, [CHANCE] + [0.4] * 9, n=150, noise=0.3, seed=seed)
        looks: list[Verdict] = [judge(snapshots[: k + 1], planned(10)) for k in range(2, 10)]
        alarms += any(v.label not in ("learning", "healthy", "inconclusive") for v in looks)
    assert alarms / runs <= 0.1


def test_the_verdict_is_a_pure_function_of_the_history(history) -> None:
    snapshots = history(FALLING, FALLING)
    assert judge(snapshots) == judge(snapshots)
