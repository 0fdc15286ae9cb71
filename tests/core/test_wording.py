"""Intervals in words, also of one bound."""

from __future__ import annotations

import pytest

from holdfast.core.wording import interval_phrase


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.25, 0.5, "0.25 to 0.5"),
        (0.25, None, "at least 0.25"),
        (None, 150_000.0, "at most 150000"),
        (None, None, ""),
        (0.0, 0.0, "0 to 0"),
    ],
)
def test_an_interval_may_be_open_on_a_side(
    low: float | None, high: float | None, words: str
) -> None:
    assert interval_phrase(low, high, lambda value: f"{value:g}") == words
