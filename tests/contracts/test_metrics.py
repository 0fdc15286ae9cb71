"""What every registered metric promises, found by discovery."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.core.records import Outputs
from holdfast.metrics import METRICS, TEXT_METRICS, Metric

ALL = [pytest.param(metric, id=name) for name, metric in METRICS.items()]


def outputs(labels, logits) -> Outputs:
    labels, logits = np.asarray(labels, dtype=np.int64), np.asarray(logits, dtype=np.float32)
    wide = logits.astype(np.float64)
    losses = np.log(np.exp(wide).sum(1)) - wide[np.arange(len(labels)), labels]
    return Outputs(np.arange(len(labels)), labels, logits, losses)


def noisy(seed: int, n: int, classes: int) -> Outputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return outputs(labels, logits)


def names(classes: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(classes))


def test_metrics_of_classes_and_of_texts_are_each_in_one_file() -> None:
    functions = [metric.function for metric in METRICS.values()]
    functions += [one.of_all or one.of_rows for one in TEXT_METRICS.values()]
    used = {function.__module__.rsplit(".", 1)[1] for function in functions}
    assert used == {"classes", "texts"}


@pytest.mark.parametrize("metric", ALL)
def test_the_name_is_the_registered_one(metric: Metric) -> None:
    assert METRICS[metric.name] is metric


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("classes", [2, 5])
def test_perfect_and_certain_predictions_give_the_best_value(metric: Metric, classes) -> None:
    labels = np.arange(60) % classes
    value = metric.compute(outputs(labels, 60.0 * np.eye(classes)[labels]), names(classes))
    if metric.two_classes and classes != 2:
        assert value is None
    else:
        best = metric.high if metric.higher_is_better else metric.low
        assert value == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("metric", ALL)
def test_the_order_of_the_rows_does_not_matter(metric: Metric) -> None:
    for classes in [2, 4]:
        for seed in range(5):
            first = noisy(seed, 97, classes)
            order = np.random.default_rng(seed).permutation(97)
            second = outputs(first.labels[order], first.logits[order])
            value = metric.compute(first, names(classes))
            assert metric.compute(second, names(classes)) == (
                None if value is None else pytest.approx(value, rel=1e-6)
            )


@pytest.mark.parametrize("metric", ALL)
def test_the_value_is_none_or_finite_and_in_range(metric: Metric) -> None:
    for n in [1, 2, 3, 20, 300]:
        for classes in [2, 3, 30]:
            value = metric.compute(noisy(n, n, classes), names(classes))
            assert value is None or (
                math.isfinite(value) and metric.low - 1e-12 <= value <= metric.high + 1e-12
            )


@pytest.mark.parametrize("metric", ALL)
def test_no_rows_are_undefined_and_say_why(metric: Metric) -> None:
    empty = outputs(np.zeros(0, dtype=int), np.zeros((0, 2)))
    assert metric.compute(empty, names(2)) is None
    assert len(metric.undefined) > 10


@pytest.mark.parametrize("metric", ALL)
def test_rows_of_a_single_class_are_defined_but_for_rankings(metric: Metric) -> None:
    one = outputs(np.zeros(10, dtype=int), np.random.default_rng(0).normal(size=(10, 2)))
    assert (metric.compute(one, names(2)) is None) == metric.two_classes


@pytest.mark.parametrize("metric", ALL)
def test_broken_logits_never_escape_as_nan(metric: Metric) -> None:
    good = noisy(0, 30, 2)
    logits = good.logits.copy()
    logits[3] = np.nan
    broken = Outputs(good.rows, good.labels, logits, np.where(np.arange(30) == 3, np.nan, 1.0))
    value = metric.compute(broken, names(2))
    assert value is None or math.isfinite(value)


@pytest.mark.parametrize("metric", ALL)
def test_noise_is_worse_than_knowledge(metric: Metric) -> None:
    knowing = noisy(0, 400, 2)
    guessing = outputs(knowing.labels, np.random.default_rng(1).normal(size=(400, 2)))
    good, bad = (metric.compute(o, names(2)) for o in (knowing, guessing))
    assert good is not None
    assert bad is not None
    assert (good > bad) == metric.higher_is_better
