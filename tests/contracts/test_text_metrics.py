"""What every registered metric of written texts promises, found by discovery."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.metrics import TEXT_METRICS, TextMetric, Texts
from holdfast.metrics.texts import EXECUTION_NAME as EXECUTION

# Execution accuracy runs code on tables; its own tests stand in tests/tasks/test_execution.py.
ALL = [pytest.param(one, id=name) for name, one in TEXT_METRICS.items() if name != EXECUTION]
WORDS = ["the", "cat", "sat", "on", "a", "red", "mat", "today", "and", "slept"]


def sentences(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(5, 12))) for _ in range(n)]


def test_the_name_is_the_registered_one_and_the_direction_is_known() -> None:
    for name, metric in TEXT_METRICS.items():
        assert (metric.name, metric.low, metric.high) == (name, 0.0, 1.0)
        assert metric.higher_is_better
        assert (metric.of_all is None) != (metric.of_rows is None)


@pytest.mark.parametrize("metric", ALL)
def test_the_references_themselves_give_the_best_value(metric: TextMetric) -> None:
    wanted = sentences(8, 0)
    assert metric.compute(Texts(wanted, wanted)) == pytest.approx(metric.high, abs=1e-9)


@pytest.mark.parametrize("metric", ALL)
def test_other_texts_are_worse_and_in_range(metric: TextMetric) -> None:
    wanted = sentences(8, 0)
    half, none = (
        metric.compute(Texts(wanted, made))
        for made in ([*wanted[:4], *["zebra"] * 4], ["zebra"] * 8)
    )
    assert half is not None
    assert none is not None
    assert half > none
    assert metric.low <= none < half < metric.high


@pytest.mark.parametrize("metric", ALL)
def test_the_order_of_the_rows_does_not_matter(metric: TextMetric) -> None:
    made = Texts(sentences(9, 0), sentences(9, 1), sentences(9, 2))
    order = np.random.default_rng(0).permutation(9)
    assert metric.compute(made.take(order)) == pytest.approx(metric.compute(made), rel=1e-9)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("texts", [[""], ["one"], ["", ""], ["…", "\n"]])
def test_empty_and_odd_texts_are_defined_or_say_why(metric: TextMetric, texts: list[str]) -> None:
    value = metric.compute(Texts(["the cat sat"] * len(texts), texts))
    assert value is None or (math.isfinite(value) and 0 <= value <= 1)


@pytest.mark.parametrize("metric", [*ALL, pytest.param(TEXT_METRICS[EXECUTION], id=EXECUTION)])
def test_no_rows_are_undefined_and_say_why(metric: TextMetric) -> None:
    assert metric.compute(Texts([], [])) is None
    assert len(metric.undefined) > 10


@pytest.mark.parametrize("metric", [m for m in TEXT_METRICS.values() if m.rate])
def test_a_rate_gives_each_row_nought_or_one(metric: TextMetric) -> None:
    assert metric.of_rows is not None
    rows = metric.of_rows(Texts(["a b", "c d"], ["a  b", "x"]))
    assert set(rows[np.isfinite(rows)]) <= {0.0, 1.0}
