"""Histories in, labels out."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.core.records import Snapshot, Verdict
from holdfast.monitor.plain import NAME, plain_rule
from holdfast.stats.temperature import best_temperature, losses_at

CHANCE = float(np.log(2))


def snapshot(step: int, train: np.ndarray, valid: np.ndarray, **more: object) -> Snapshot:
    return Snapshot(
        step=step, epoch=step / 100, examples_seen=step * 16, phase="fit", train_losses=train,
        valid_losses=valid, train_metrics={}, valid_metrics={}, refined_loss=float("nan"),
        temperature=1.0, learning_rate=3e-5, gradient_norm=None, relative_update=None,
        distance=None, seconds=0.0, **more,
    )  # fmt: skip


def history(train: list[float], valid: list[float], n: int = 400, noise: float = 0.08, seed=0):
    """Mean losses in; each row keeps its difficulty from look to look."""
    rng = np.random.default_rng(seed)
    rows_t, rows_v = (rng.gamma(4, 0.25, size=n) for _ in range(2))

    def rows(hard: np.ndarray, mean: float) -> np.ndarray:
        return hard / hard.mean() * mean + rng.normal(size=len(hard)) * noise * mean

    return [
        snapshot(100 * i, rows(rows_t, t), rows(rows_v, v))
        for i, (t, v) in enumerate(zip(train, valid, strict=True))
    ]


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


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
@pytest.mark.parametrize("seed", range(3))
def test_the_table_of_histories(label: str, train: list, valid: list, seed: int) -> None:
    verdict = plain_rule(history(train, valid, seed=seed))
    assert verdict.label == label, verdict.because


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
def test_every_verdict_says_that_it_is_the_plain_rule(label, train, valid) -> None:
    verdict = plain_rule(history(train, valid))
    assert NAME in verdict.because
    assert verdict.because.endswith(".")
    assert 0 <= verdict.confidence <= 1
    assert verdict.evidence


def test_too_few_rows_say_how_many_would_be_needed() -> None:
    train, valid = [CHANCE, 0.4, 0.3, 0.25], [CHANCE, 0.50, 0.42, 0.43]
    verdict = plain_rule(history(train, valid, n=15, noise=0.4, seed=3))
    assert verdict.label == "inconclusive"
    assert "validation rows would settle it" in verdict.because


def test_overfit_names_the_step_after_the_best_and_runnable_remedies() -> None:
    verdict = plain_rule(history(*TABLE[3][1:]))
    assert verdict.since_step == 300
    settings = [line for remedy in verdict.remedies for line in remedy.set]
    assert "train.epochs=2" in settings


def test_a_bad_look_early_is_not_divergence() -> None:
    verdict = plain_rule(history([CHANCE, 0.9], [CHANCE, 0.9]))
    assert verdict.label != "diverging" or "train probe got worse too" in verdict.because


def test_one_early_peak_that_recovers_is_forgotten() -> None:
    verdict = plain_rule(history([CHANCE, 1.0, 0.5, 0.4], [CHANCE, 1.0, 0.55, 0.45]))
    assert verdict.label == "learning"


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_snapshots_claim_nothing(count: int) -> None:
    verdict = plain_rule(history(FALLING, FALLING)[:count])
    assert verdict.label == "inconclusive"
    assert verdict.confidence == 0


def test_no_validation_rows_claim_nothing() -> None:
    empty = [snapshot(i, np.full(20, 1.0 - i / 10), np.zeros(0)) for i in range(4)]
    verdict = plain_rule(empty)
    assert verdict.label == "inconclusive"
    assert "no validation rows" in verdict.because


def test_an_empty_train_probe_still_gives_a_verdict() -> None:
    full = history(*TABLE[3][1:])
    bare = [snapshot(s.step, np.zeros(0), s.valid_losses) for s in full]
    assert plain_rule(bare).label == "overfit"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_loss_that_is_no_number_is_diverging(value: float, part: str) -> None:
    train, valid = np.ones(20), np.ones(20)
    broken = np.where(np.arange(20) == 7, value, 1.0)
    last = snapshot(100, broken, valid) if part == "train" else snapshot(100, train, broken)
    verdict = plain_rule([snapshot(0, train, valid), last])
    assert verdict.label == "diverging"
    assert verdict.since_step == 100


def _with_logits(scales: list[float], quality: list[float], n: int = 400) -> list[Snapshot]:
    """Models that differ in confidence (scale) and in knowledge (quality)."""
    rng = np.random.default_rng(0)
    labels, base = rng.integers(0, 2, n), rng.normal(size=(n, 2))
    made = []
    for i, (scale, good) in enumerate(zip(scales, quality, strict=True)):
        logits = base + rng.normal(size=(n, 2)) * 0.05
        logits[np.arange(n), labels] += good
        logits = (scale * logits).astype(np.float32)
        valid = losses_at(logits, labels, 1.0)
        train = np.full(n, CHANCE / (1 + i)) + rng.normal(size=n) * 0.01
        shown = {"valid_logits": logits}
        one = snapshot(100 * i, train, valid, **shown)
        made.append(one)
    return [_tempered(one, labels) for one in made]


def _tempered(one: Snapshot, labels: np.ndarray) -> Snapshot:
    import dataclasses

    assert one.valid_logits is not None
    temperature = best_temperature(one.valid_logits, labels)[0]
    return dataclasses.replace(one, temperature=temperature)


def test_growing_confidence_alone_is_not_overfitting() -> None:
    snapshots = _with_logits([0.5, 1, 3, 8, 20], [0.0, 1.5, 1.5, 1.5, 1.5])
    import dataclasses

    raw = [dataclasses.replace(s, valid_logits=None) for s in snapshots]
    assert plain_rule(raw).label == "overfit"
    refined = plain_rule(snapshots)
    assert refined.label == "healthy", refined.because


def test_losing_knowledge_is_overfitting_in_the_refined_loss_too() -> None:
    verdict = plain_rule(_with_logits([1, 1, 1, 1], [0.0, 1.5, 1.0, 0.7]))
    assert verdict.label == "overfit"
    assert "after its best temperature" in verdict.because


def test_flat_histories_are_rarely_called_overfit_at_any_look() -> None:
    """Ten looks at converged, noisy models whose train probe keeps falling."""
    alarms, runs = 0, 25
    for seed in range(runs):
        train = [CHANCE, *np.linspace(0.4, 0.3, 9)]
        snapshots = history(train, [CHANCE] + [0.4] * 9, n=150, noise=0.3, seed=seed)
        looks: list[Verdict] = [plain_rule(snapshots[: k + 1]) for k in range(2, 10)]
        alarms += any(verdict.label == "overfit" for verdict in looks)
    assert alarms / runs <= 0.12


def test_the_verdict_is_a_pure_function_of_the_history() -> None:
    snapshots = history(FALLING, FALLING)
    assert plain_rule(snapshots) == plain_rule(snapshots)
