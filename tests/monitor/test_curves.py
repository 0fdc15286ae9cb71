"""Curves in, labels out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from holdfast.core.curves import Curves, Series
from holdfast.core.records import to_json
from holdfast.monitor.curve_shape import running_median, shape_of
from holdfast.monitor.curves import judge_curves
from holdfast.recipe import known_keys

POSITIVE = ("overfit", "memorizing", "miscalibrated")
NAN = float("nan")


def series(name: str, values: list[float] | np.ndarray, rises: bool = False) -> Series:
    array = np.asarray(values, dtype=np.float64)
    return Series(name, np.arange(1.0, len(array) + 1), array, rises)


def curves(train: list[float] | None, valid: list[float] | None, **more: object) -> Curves:
    return Curves(
        "test", "epoch", None if train is None else series("loss", train),
        None if valid is None else series("val_loss", valid), **more,
    )  # fmt: skip


FALL = [1.0, 0.7, 0.5, 0.36, 0.26, 0.19, 0.14, 0.1, 0.07, 0.05]
TURN = [1.05, 0.8, 0.65, 0.6, 0.63, 0.68, 0.74, 0.8, 0.86, 0.92]
FLAT = [1.05, 0.7, 0.6, 0.56, 0.55, 0.548, 0.547, 0.547, 0.546, 0.546]
TABLE = [
    ("overfit", FALL, TURN),
    ("overfit", None, TURN),
    ("healthy", [1.0, 0.7, 0.6, 0.55, 0.53, 0.52, 0.52, 0.52, 0.52, 0.52], FLAT),
    ("learning", FALL, [1.05, 0.8, 0.66, 0.56, 0.5, 0.45, 0.41, 0.38, 0.36, 0.34]),
    ("underfit", [2.3, 2.29, 2.28, 2.28, 2.27, 2.27], [2.31, 2.3, 2.3, 2.29, 2.29, 2.29]),
    ("underfit", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5], [1.1, 1.0, 0.9, 0.8, 0.7, 0.6]),
    ("diverging", [1.0, 0.7, 0.5, NAN, NAN, NAN], [1.1, 0.8, 0.6, NAN, NAN, NAN]),
    ("diverging", [1.0, 0.6, 0.5, 1.5, 4.0, 9.0, 20.0], [1.0, 0.6, 0.5, 1.6, 4.0, 9.0, 20.0]),
    ("inconclusive", FALL, None),
    ("inconclusive", [1.0, 0.5, 0.3], [1.0, 0.8, 0.9]),
    ("inconclusive", FALL, [0.6, 0.9, 0.5, 1.1, 0.6, 1.0, 0.55, 1.05, 0.6, 0.9]),
    ("memorizing", [1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 0.005, 0.002, 0.001, 0.001], FLAT),
]  # fmt: skip


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
def test_the_label_of_a_log(label: str, train: list[float] | None, valid: list[float]) -> None:
    assert judge_curves(curves(train, valid)).label == label


def test_overfitting_begins_after_the_best_evaluation() -> None:
    assert judge_curves(curves(FALL, TURN)).since_step == 5


def parted() -> Curves:
    """Training accuracy into the high nineties, validation never above 80 %, the losses part after
    epoch 5; with the noise of a real run."""
    rng, epochs = np.random.default_rng(3), np.arange(1, 31)
    train = 1.5 * np.exp(-epochs / 7) * (1 + 0.02 * rng.normal(size=30))
    valid = np.where(epochs <= 5, 1.5 * np.exp(-epochs / 7), 0.73 + 0.035 * (epochs - 5))
    valid = valid * (1 + 0.02 * rng.normal(size=30))
    known = 0.985 - 0.5 * np.exp(-epochs / 6)
    right = np.minimum(known, 0.75 + 0.0015 * epochs) + 0.004 * rng.normal(size=30)
    return Curves(
        "keras", "epoch", series("loss", train), series("val_loss", valid),
        series("accuracy", known, True), series("val_accuracy", right, True),
    )  # fmt: skip


def test_a_run_whose_losses_part_after_epoch_5_overfits_since_about_then() -> None:
    log = parted()
    assert log.train_metric is not None
    assert log.valid_metric is not None
    assert log.train_metric.values[-1] > 0.97
    assert log.valid_metric.values.max() < 0.8
    verdict = judge_curves(log)
    assert verdict.label == "overfit"
    assert 4 <= (verdict.since_step or 0) <= 8


def test_a_loss_that_rises_while_the_metric_holds_is_miscalibrated() -> None:
    held = series("val_accuracy", [0.6, 0.7, 0.8, 0.84, 0.85, 0.85, 0.86, 0.86, 0.86, 0.86], True)
    near = series("accuracy", [0.6, 0.72, 0.82, 0.86, 0.88, 0.89, 0.9, 0.91, 0.91, 0.92], True)
    log = replace(curves([v + 0.1 for v in FALL], TURN), valid_metric=held)
    assert judge_curves(log).label == "miscalibrated"
    assert judge_curves(replace(log, train_metric=near)).label == "miscalibrated"
    fallen = replace(held, values=held.values - np.linspace(0, 0.2, 10))
    assert judge_curves(replace(log, valid_metric=fallen)).label == "overfit"


def test_validation_far_better_by_loss_and_metric_is_leaking_by_loss_alone_it_is_not() -> None:
    train = [2.0, 1.6, 1.4, 1.3, 1.25, 1.2, 1.2, 1.2]
    valid = [0.9, 0.4, 0.3, 0.25, 0.22, 0.2, 0.2, 0.2]
    log = curves(train, valid)
    assert judge_curves(log).label != "leaking"
    metrics = {
        "train_metric": series("acc", [0.3, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], True),
        "valid_metric": series("val_acc", [0.9, 0.95, 0.97, 0.98, 0.98, 0.98, 0.98, 0.98], True),
    }
    assert judge_curves(replace(log, **metrics)).label == "leaking"


def test_a_metric_that_falls_past_its_best_overfits() -> None:
    values = [0.5, 0.7, 0.8, 0.85, 0.84, 0.82, 0.8, 0.78, 0.76, 0.74]
    log = replace(curves(FALL, None), valid=series("val_f1", values, True))
    percent = replace(log, valid=series("val_f1", [100 * v for v in values], True))
    assert judge_curves(log).label == judge_curves(percent).label == "overfit"
    assert judge_curves(log).since_step == 5


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
@pytest.mark.parametrize("factor", [1e-4, 37.0])
def test_the_unit_of_the_loss_and_the_axis_change_nothing(label, train, valid, factor) -> None:
    log = curves(train, valid)
    scaled = {
        side: None if s is None else replace(s, values=s.values * factor, at=s.at * 500)
        for side, s in (("train", log.train), ("valid", log.valid))
    }
    assert judge_curves(replace(log, **scaled)).label == label


def test_a_run_that_was_to_go_on_is_learning_where_a_finished_one_underfits() -> None:
    line = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert judge_curves(curves(line, line, planned=6)).label == "underfit"
    assert judge_curves(curves(line, line, planned=60)).label == "learning"


@pytest.mark.parametrize("points", [8, 20, 60])
@pytest.mark.parametrize("noise", [0.02, 0.08])
def test_independent_noise_around_a_flat_end_is_seldom_called_overfit(points, noise) -> None:
    """At most 5 %: of 100 simulations at that rate, 11 is passed once in a hundred."""
    rng, at = np.random.default_rng(points), np.arange(points)
    fall = 0.4 + 0.6 * np.exp(-8 * at / points)
    train = list(0.3 + 0.7 * np.exp(-4 * at / points))
    called = sum(
        judge_curves(curves(train, list(fall * (1 + noise * rng.normal(size=points))))).label
        in POSITIVE
        for _ in range(100)
    )
    assert called <= 11


@pytest.mark.parametrize("points", [12, 30, 120])
def test_a_doubled_loss_under_noise_is_nearly_always_seen(points: int) -> None:
    rng, at = np.random.default_rng(points), np.linspace(0, 1, points)
    valid = np.where(at < 0.3, 1 - 2 * at, 0.4 + 0.6 * (at - 0.3))
    train = list(np.exp(-4 * at))
    seen = sum(
        judge_curves(curves(train, list(valid * (1 + 0.04 * rng.normal(size=points))))).label
        in POSITIVE
        for _ in range(60)
    )
    assert seen >= 57


@pytest.mark.parametrize("count", range(4))
def test_few_points_are_inconclusive_and_say_how_many_would_do(count: int) -> None:
    verdict = judge_curves(curves(FALL, [1.0, 0.9, 1.5][:count]))
    assert (verdict.label, verdict.confidence) == ("inconclusive", 0.0)
    assert "4 is the least" in verdict.because


def test_one_bad_point_in_the_middle_is_no_divergence() -> None:
    broken = [*TURN[:2], NAN, *TURN[3:]]
    assert judge_curves(curves(FALL, broken)).label == "overfit"


def test_no_finite_validation_value_is_said() -> None:
    verdict = judge_curves(curves(FALL, [NAN] * 10))
    assert verdict.label == "diverging"
    assert "no value of it is finite" in verdict.because


def test_a_running_training_loss_is_named_as_such_and_a_clean_one_is_not() -> None:
    assert "moving model" in judge_curves(curves(FALL, TURN)).because
    assert "moving model" not in judge_curves(curves(FALL, TURN, clean=True)).because


@pytest.mark.parametrize(("label", "train", "valid"), TABLE)
def test_a_verdict_is_plain_json_and_its_settings_are_keys_of_a_recipe(label, train, valid) -> None:
    verdict = judge_curves(curves(train, valid))
    json.dumps(to_json(verdict), allow_nan=False)
    assert 0 <= verdict.confidence <= 0.9
    keys = [s.partition("=")[0] for remedy in verdict.remedies for s in remedy.set]
    assert set(keys) <= set(known_keys())
    assert label == "healthy" or verdict.remedies


def test_the_running_median_is_that_of_scipy_inside() -> None:
    from scipy.ndimage import median_filter

    values = np.random.default_rng(0).normal(size=80)
    ours = running_median(values, 7)
    assert ours[3:-3] == pytest.approx(median_filter(values, 7)[3:-3])
    assert ours[0] == np.median(values[:4])


def test_the_noise_of_a_shape_is_that_of_the_points_around_it() -> None:
    rng = np.random.default_rng(1)
    found = [
        shape_of(series("v", 5 + np.arange(100) * 0.2 + 0.3 * rng.normal(size=100)))
        for _ in range(50)
    ]
    noise = np.mean([s.noise for s in found if s is not None])
    assert noise == pytest.approx(0.3 * math.sqrt(math.pi / 10), rel=0.15)


def test_the_real_runs_that_clearly_turn_and_clearly_do_not(shared_data: Path) -> None:
    from holdfast.integrations.logs.read import read_curves

    expected = {
        "fabiom91__ConvNeXt_AI_Competition_Platform.json": POSITIVE,
        "ShashankBommana__DNABERT-2.json": ("miscalibrated",),
        "WELCOME-project__disfluency-tool.json": ("healthy",),
        "akhmetvaleev-ruslan__bashkir-language-audio2text.json": ("learning",),
        "anra8571__WikipediaLLM__nan.json": ("diverging",),
        "JakubMroz4__subjectivity-detection.json": ("inconclusive",),
    }
    for name, labels in expected.items():
        curves = read_curves(shared_data / "trainer_states" / name)
        assert judge_curves(curves).label in labels, name
