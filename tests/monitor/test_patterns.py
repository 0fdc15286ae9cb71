"""Patterns in the curves of a log: what is named, where, and what is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from holdfast.core.curves import Curves, Series
from holdfast.monitor.curves.patterns import PATTERNS, patterns_of, patterns_of_run

STEPS = np.arange(1.0, 121)
FALL = 2 * np.exp(-STEPS / 40) + 0.2
NOISE = 0.02 * np.random.default_rng(0).standard_normal(len(STEPS))
EPOCHS = Series("epoch", STEPS, STEPS / 30)
PLACES = np.arange(9, 120, 10)


def log(train: Any = None, valid: Any = None, metric: Any = None) -> Curves:
    train = FALL + NOISE if train is None else train
    at = STEPS[PLACES]
    return Curves(
        "test",
        "step",
        Series("loss", STEPS, np.asarray(train)),
        None if valid is None else Series("eval_loss", at, np.asarray(valid)),
        None,
        None if metric is None else Series("eval_accuracy", at, np.asarray(metric), True),
        epochs=EPOCHS,
    )


def names(curves: Curves) -> list[str]:
    return [one.name for one in patterns_of(curves)]


def test_a_plain_log_has_none() -> None:
    valid = 1.2 * FALL[PLACES] + NOISE[PLACES]
    assert names(log(valid=valid, metric=np.linspace(0.5, 0.9, 12))) == []


def test_stairs_are_named_at_the_ends_of_epochs() -> None:
    levels = np.repeat([2.0, 1.2, 0.7, 0.4], 30)
    (found,) = patterns_of(log(train=levels + NOISE))
    assert (found.name, found.at) == ("stairs", (31.0, 61.0, 91.0))
    assert "falls at the ends of 3 epochs" in found.because
    # The same steps within epochs are no stairs.
    assert names(log(train=np.r_[levels[15:], np.full(15, 0.4)] + NOISE)) == []


def test_validation_below_training_is_named_and_called_usual() -> None:
    (found,) = patterns_of(log(valid=0.7 * FALL[PLACES]))
    assert found.name == "validation below training"
    assert "11 evaluations of 11" in found.because
    assert "dropout" in found.meaning


def test_a_loss_that_rises_while_the_metric_improves_is_named() -> None:
    valid = np.r_[np.linspace(2, 0.8, 4), np.linspace(0.85, 1.6, 8)]
    rising, falling = np.linspace(0.6, 0.9, 12), np.r_[np.linspace(0.6, 0.8, 4), [0.7] * 8]
    (found,) = patterns_of(log(valid=valid, metric=rising))
    assert (found.name, found.at) == ("loss and metric part", (50.0,))
    assert "improves by" in found.because
    assert names(log(valid=valid, metric=falling)) == []


@pytest.mark.parametrize("height", [1.0, 5.0])
def test_single_spikes_are_named_with_their_places(height: float) -> None:
    train = FALL + NOISE
    train[[40, 77]] += height
    (found,) = patterns_of(log(train=train))
    assert (found.name, found.at) == ("spikes", (41.0, 78.0))
    # A level that stays is none.
    stays = FALL + NOISE
    stays[60:] += height
    assert "spikes" not in names(log(train=stays))


def test_none_needs_a_validation_or_more_than_one_point() -> None:
    for values in ([1.0], [1.0, 0.9], [float("nan")] * 5):
        steps = np.arange(1.0, len(values) + 1)
        one = Curves("test", "step", Series("loss", steps, np.array(values)))
        assert patterns_of(one) == ()
    assert len(PATTERNS) == 4


RISING = [2.0 - 0.2 * min(i, 5) + 0.1 * max(0, i - 5) for i in range(12)]
FALLING = [2.0 - 0.1 * i for i in range(12)]
GROWING = [0.3 + 0.04 * i for i in range(12)]
CEASING = [0.3 + 0.04 * min(i, 5) for i in range(12)]


@pytest.mark.parametrize(
    ("metrics", "valid", "name"),
    [
        ({"accuracy": GROWING}, RISING, "accuracy"),
        ({"token_accuracy": CEASING, "rouge_l": GROWING}, RISING, "ROUGE-L"),
        ({"accuracy": CEASING}, RISING, None),
        ({"accuracy": GROWING}, FALLING, None),
        # A higher error is worse, like the loss.
        ({"mae": GROWING, "perplexity": GROWING}, RISING, None),
        ({}, RISING, None),
    ],
)
def test_a_run_of_ours_says_that_its_answers_improved(
    history: Any, metrics: dict[str, list[float]], valid: list[float], name: str | None
) -> None:
    each = [
        dict(zip(metrics, values, strict=True)) for values in zip(*metrics.values(), strict=True)
    ]
    run = history(FALLING, valid, valid_metrics=each or [{}] * 12)
    found = patterns_of_run(run)
    assert len(found) == (name is not None)
    for one in found:
        assert f"while {name} improves by 20 points" in one.because


def test_a_run_without_evaluations_or_validation_rows_has_no_pattern(history: Any) -> None:
    assert patterns_of_run([]) == ()
    empty = [dataclasses.replace(one, valid_losses=np.zeros(0)) for one in history(FALLING, RISING)]
    assert patterns_of_run(empty) == ()
