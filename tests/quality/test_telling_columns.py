"""Columns beside the text that alone tell the class."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.checks.shortcuts.giveaway import telling_columns
from holdfast.quality.views import OtherColumns, TableRows

N = 300
Y = np.random.default_rng(0).integers(0, 3, N)
DRAWN = np.random.default_rng(1)


def found(**columns):
    table = table_from_texts([f"text {k}" for k in range(N)], [f"class {k}" for k in Y])
    beside = OtherColumns(tuple(columns), lambda name: list(columns[name]))
    result = telling_columns(TableRows(table, beside))
    return result and result.finding


@pytest.mark.parametrize(
    ("values", "how"),
    [
        ([f"s{k}" for k in Y], "its value"),
        ([f"data/{'abc'[k]}/{at}.txt" for at, k in enumerate(Y)], "the folder"),
        ([f"{'abc'[k]}-{at}" for at, k in enumerate(Y)], "the characters around its digits"),
        ([str(10_000 * k + at) for at, k in enumerate(Y)], "its order"),
        # A whole number among others, a sign, more digits than ``int`` takes.
        ([f"{k + at / 1000:.15g}" for at, k in enumerate(Y)], "its order"),
        ([str(at - 600 if k == 0 else k * 500 + at) for at, k in enumerate(Y)], "its order"),
        ([f"{k + 1}{at:05000}" for at, k in enumerate(Y)], "its order"),
        ([f"2024-0{k + 1}-{n % 28 + 1:02} {n // 28:02}:00" for n, k in enumerate(Y)], "its order"),
    ],
)
def test_a_column_that_tells_the_class_is_named(values, how) -> None:
    finding = found(other=[f"v{k}" for k in DRAWN.integers(0, 9, N)], given=values)
    assert f"'given' by {how}" in finding.because
    assert "'other'" not in finding.because
    assert finding.count > 0.9 * N


@pytest.mark.parametrize("seed", range(10))
def test_columns_that_have_nothing_to_do_with_the_class_are_left_alone(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    assert (
        found(
            user=[f"u{k}" for k in rng.integers(0, 40, N)],
            number=[str(k) for k in rng.integers(0, 10**6, N)],
            id=[f"{at:05}" for at in rng.permutation(N)],
            path=[f"{rng.integers(9)}/{at}.txt" for at in range(N)],
            same=["x"] * N,
            empty=[None] * N,
        )
        is None
    )


def test_a_value_of_each_row_tells_nothing() -> None:
    """Of unique ids each is of one class; but no other row says so."""
    assert found(id=[f"{at:x}q" for at in DRAWN.permutation(10**6)[:N]]) is None


def test_no_other_columns_no_finding() -> None:
    assert found() is None
