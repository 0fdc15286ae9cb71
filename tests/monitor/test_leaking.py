"""Overfit is no leak: rows that change sides are lost as often as they are mended."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from holdfast.core.records import Finding, Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.judge import judge
from holdfast.stats.temperature import best_temperature, losses_at
from holdfast.training.evaluation_file import read_evaluations, write_evaluations

LOOKS = 14
FACTS = RunFacts(classes=2, planned_steps=100 * (LOOKS - 1), planned_looks=LOOKS, train_rows=60)


def run(
    make: Any, known: float = 0.0, seed: int = 0, n: int = 100, knows: float = 0.3
) -> list[Snapshot]:
    """Two classes. The margins of training rows grow until all are right; those of validation rows
    wander about a little knowledge, ever surer, and turn from one class to the other; a share
    ``known`` of them are training rows too."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    margin, copied = rng.normal(knows, 1, n), rng.random(n) < known
    steady = rng.normal(0, 0.9, 60)
    made = []
    for look in range(LOOKS):
        share = look / (LOOKS - 1)
        margin = knows + 0.6 * (margin - knows) + 0.8 * rng.normal(0, 1, n)
        learned = 3 * share**0.5 + rng.permutation(np.resize(steady, n))
        turned = margin + 2 * (0.5 - share) * np.where(labels, 1, -1)
        seen = np.where(copied, learned, turned)
        scale = 0.3 + 6 * share
        logits = np.zeros((n, 2), dtype=np.float32)
        logits[np.arange(n), labels] = scale * seen
        train = np.log1p(np.exp(-scale * (3 * share**0.5 + steady)))
        made.append(
            make(
                100 * look,
                train,
                losses_at(logits, labels, 1.0),
                valid_logits=logits,
                valid_correct=logits.argmax(1) == labels,
                train_correct=train < np.log(2),
                temperature=best_temperature(logits, labels)[0],
            )
        )
    return made


@pytest.mark.parametrize("seed", range(6))
def test_predictions_that_change_sides_are_overfit(snapshot: Any, seed: int) -> None:
    history = run(snapshot, seed=seed, knows=0.6)
    last, lowest = history[-1], min(s.valid_losses.mean() for s in history)
    assert last.train_correct.mean() == 1.0
    assert last.valid_correct.mean() < 0.8
    assert last.valid_losses.mean() > 1.5 * lowest
    assert judge(history, FACTS).label == "overfit"


@pytest.mark.parametrize(("known", "n"), [(1.0, 100), (1.0, 200), (0.95, 200)])
def test_rows_that_training_knows_leak(snapshot: Any, known: float, n: int) -> None:
    history = run(snapshot, known=known, n=n, knows=1.0)
    verdict = judge(history, FACTS)
    assert verdict.label == "leaking", verdict.because
    (evidence,) = (e for e in verdict.evidence if e.name == "share_of_hard_valid_rows_fitted")
    assert 0 < evidence.low < evidence.value <= evidence.high


def test_the_net_share_subtracts_what_was_lost(snapshot: Any) -> None:
    """10 of 10 wrong rows are mended, and 10 of the 90 right ones are lost: net nothing."""
    hits = np.ones((2, 100), dtype=bool)
    hits[0, :10] = hits[1, 90:] = False
    right, floor = np.full(60, True), np.full(60, 0.01)

    def history(after: np.ndarray) -> list[Snapshot]:
        return [
            snapshot(
                100 * k, floor, np.where(row, 0.01, 5.0), valid_correct=row, train_correct=right
            )
            for k, row in enumerate((hits[0], after))
        ]

    assert judge(history(hits[1]), FACTS).label != "leaking"
    assert judge(history(np.ones(100, dtype=bool)), FACTS).label == "leaking"


def test_where_duplicates_were_counted_none_are_inferred(snapshot: Any) -> None:
    history = run(snapshot, known=1.0, knows=1.0)
    assert judge(history, dataclasses.replace(FACTS, copied_valid=(0, 100))).label != "leaking"
    assert judge(history, dataclasses.replace(FACTS, copied_valid=(90, 100))).label == "leaking"


@pytest.mark.parametrize(("between", "leaks"), [(1.0, True), (0.7, False)])
def test_what_training_first_undid_is_learned_not_remembered(
    snapshot: Any, between: float, leaks: bool
) -> None:
    """A linear probe on random features knows the training rows; training loses them, and learns
    features that are right on validation rows, too."""
    right, all_right = np.full(60, True), np.ones(100, dtype=bool)
    part = np.arange(60) < between * 60
    looks = [
        snapshot(
            100 * k,
            np.where(train, 0.01, 2.0),
            np.where(valid, 0.01, 5.0),
            valid_correct=valid,
            train_correct=train,
        )
        for k, (train, valid) in enumerate(
            [(right, np.arange(100) >= 20), (part, np.arange(100) >= 30), (right, all_right)]
        )
    ]
    assert (judge(looks, FACTS).label == "leaking") == leaks


@pytest.mark.parametrize("known", [0.0, 1.0])
def test_a_stored_run_is_judged_as_it_was(snapshot: Any, tmp_path: Path, known: float) -> None:
    history = run(snapshot, known=known)
    write_evaluations(tmp_path / "looks.npz", history, FACTS, 400, "0")
    looks = read_evaluations(tmp_path / "looks.npz")
    assert judge(looks.history, looks.run_facts, looks.best_step) == judge(history, FACTS, 400)


@pytest.mark.parametrize(("right", "severity"), [(190, "error"), (190, "warn"), (170, "error")])
def test_a_label_that_stands_in_the_text_leaks_where_nine_of_ten_rows_are_right(
    snapshot: Any, right: int, severity: str
) -> None:
    looks = [
        snapshot(
            100 * k,
            np.full(60, 0.5 - 0.1 * k),
            np.full(200, 0.6 - 0.1 * k),
            valid_correct=np.arange(200) < hits,
            train_correct=np.full(60, True),
        )
        for k, hits in enumerate((100, 150, right))
    ]
    found = Finding("label_giveaway", severity, 0.99, 198, (), "the label stands in it", "look")
    verdict = judge(looks, dataclasses.replace(FACTS, findings=(found,)))
    assert (verdict.label == "leaking") == (right == 190 and severity == "error")
    if verdict.label == "leaking":
        (seen,) = [one for one in verdict.evidence if one.name == "valid_accuracy"]
        limits = binomtest(right, 200).proportion_ci(method="wilson")
        assert (seen.value, seen.low, seen.high) == pytest.approx((0.95, limits.low, limits.high))
