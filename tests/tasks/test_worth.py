"""The sentence that says whether fine-tuning a language model was worth it."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.tasks.generation.worth import PLAIN, answer_of


def against_base(value: float, low: float | None, high: float | None, p: float) -> Any:
    gap = {"value": value, "low": low, "high": high}
    one = {"shots": 0, "n": 40, "difference": gap, "p_adjusted": p, "more_rows": None}
    return {PLAIN: one}


@pytest.mark.parametrize(
    ("comparison", "verdict", "words"),
    [
        ((-0.056, -0.091, -0.021, 0.01), "yes", "by 0.056 nats per token (95 % CI 0.021 to 0.091"),
        ((0.2, 0.1, 0.3, 0.001), "no", "higher than that of the base model by 0.200 nats per"),
        (
            (-0.01, -0.04, 0.02, 0.6),
            "undecided",
            "can be shown (95 % CI −0.040 to +0.020, 40 rows)",
        ),
        # Shown without Holm's correction only.
        ((-0.01, -0.02, -0.001, 0.06), "undecided", "can be shown (40 rows)"),
        ((-0.5, None, None, 0.01), "yes", "by 0.500 nats per token (40 rows)"),
    ],
)
def test_each_difference_has_its_interval(
    comparison: tuple[Any, ...], verdict: str, words: str
) -> None:
    found, sentence, _ = answer_of(against_base(*comparison))
    assert found == verdict
    assert words in sentence
