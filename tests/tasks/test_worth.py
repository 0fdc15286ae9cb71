"""The sentence that says whether fine-tuning a language model was worth it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.core.records import Floats
from holdfast.metrics import TEXT_METRICS
from holdfast.tasks.generation.text_scores import Generated
from holdfast.tasks.generation.token_scores import TokenOutputs
from holdfast.tasks.generation.worth import EXAMPLES, PLAIN, Prompting, answer_of, worth_block


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


def test_the_rows_that_would_decide_are_whole_groups_at_the_level_of_holm() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 10)
    base, change = rng.normal(2, 0.3, 120), np.repeat(rng.normal(-0.03, 0.12, 12), 10)
    named = groups.astype(str).astype(object)

    def outputs(losses: Floats) -> TokenOutputs:
        return TokenOutputs(np.arange(120), losses, np.full(120, 20), np.zeros(120), named)

    one = Prompting(outputs(base), outputs(base + change))
    texts = Generated(np.arange(0), [], [], [])
    block = worth_block({PLAIN: one, EXAMPLES: one}, texts, None, TEXT_METRICS["rouge_l"], None)
    value, sd = change.reshape(12, 10).mean(axis=1).mean(), change[::10].std(ddof=1)
    assert block["verdict"] == "undecided"

    # Student's power at 5 % ÷ 2, by SciPy, of one group fewer and of as many as are needed.
    def power(n: int) -> float:
        shift, limit = abs(value) / sd * np.sqrt(n), stats.t.ppf(1 - 0.025 / 2, n - 1)
        return float(stats.nct.sf(limit, n - 1, shift))

    n = 12 + block["more_rows"] // 10
    assert power(n - 1) < 0.8 <= power(n)
