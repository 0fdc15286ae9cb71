"""The sentence that says whether fine-tuning a language model was worth it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.core.records import Floats
from holdfast.metrics import TEXT_METRICS
from holdfast.tasks.generation.judge import MetricJudge
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
        (
            (-0.01, -0.02, -0.001, 0.06),
            "undecided",
            "95 % CI −0.020 to −0.001, but p = 0.06 after Holm's correction, 40 rows",
        ),
        ((-0.5, None, None, 0.01), "yes", "by 0.500 nats per token (40 rows)"),
    ],
)
def test_each_difference_has_its_interval(
    comparison: tuple[Any, ...], verdict: str, words: str
) -> None:
    found, sentence, _ = answer_of(against_base(*comparison), {})
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


def compared_block(
    loss_change: float, better_texts: int, metric: str = "rouge_l"
) -> dict[str, Any]:
    """40 rows; the fine-tuned model's loss is higher by ``loss_change``, its texts are the
    references in ``better_texts`` rows more than the base model's."""
    rng = np.random.default_rng(1)
    base = rng.normal(2, 0.3, 40)

    def outputs(losses: Floats) -> TokenOutputs:
        return TokenOutputs(np.arange(40), losses, np.full(40, 20), np.zeros(40))

    said = [f"answer number {k}" for k in range(40)]
    good, bad = said, [f"something {k} else" for k in range(40)]
    at = 20 + better_texts // 2
    texts = [*good[:at], *bad[at:]]
    untuned = [*bad[:at], *good[at:]]
    made = Generated(np.arange(40), ["q"] * 40, said, texts, untuned)
    tuned = outputs(base + loss_change + rng.normal(0, 0.05, 40))
    way = {PLAIN: Prompting(outputs(base), tuned, untuned)}
    judge = MetricJudge(TEXT_METRICS[metric])
    return worth_block(way, made, judge, TEXT_METRICS[metric], None)


@pytest.mark.parametrize(
    ("loss_change", "better_texts", "verdict", "words"),
    [
        (0.2, 30, "undecided", "its loss is higher than that of the base model by"),
        (-0.2, -30, "undecided", "its loss is lower than that of the base model by"),
        (0.2, 0, "no", ""),
        (0.2, -30, "no", ""),
        (-0.2, 30, "yes", ""),
        (-0.2, 0, "yes", ""),
    ],
)
def test_texts_that_contradict_the_loss_leave_it_undecided(
    loss_change: float, better_texts: int, verdict: str, words: str
) -> None:
    block = compared_block(loss_change, better_texts)
    assert block["verdict"] == verdict
    assert words in block["because"]
    direction = "better" if better_texts > 0 else "worse"
    stated = f", but its generated texts are {direction} in ROUGE-L than those of the base model ("
    assert (stated in block["because"]) == (verdict == "undecided")
    assert block["more_rows"] is None


def test_the_difference_of_texts_has_the_interval_of_its_kind() -> None:
    """ROUGE-L by a bootstrap, whose limits are near Student's of SciPy; a rate by McNemar's test,
    as statsmodels has it."""
    found = compared_block(0.0, 20)["texts"]
    gap = found["difference"]["zero_shot"]
    rows = np.where(np.arange(40) < 30, 1.0, -1.0)
    assert found["tuned"] - found["zero_shot"] == pytest.approx(gap["difference"]["value"])
    scale = gap["difference"]["value"] / rows.mean()
    low, high = stats.t.interval(0.95, 39, rows.mean() * scale, stats.sem(rows * scale))
    assert gap["difference"]["low"] == pytest.approx(low, abs=0.05)
    assert gap["difference"]["high"] == pytest.approx(high, abs=0.05)
    assert gap["verdict"] == "better"
    rate = compared_block(0.0, 20, "exact_match")["texts"]["difference"]["zero_shot"]
    assert rate["difference"]["value"] == pytest.approx(0.5)
    # The mid-p of 10 of 40 discordant rows, by SciPy's binomial.
    exact = 2 * stats.binom.cdf(10, 40, 0.5) - stats.binom.pmf(10, 40, 0.5)
    assert rate["p_value"] == pytest.approx(exact)


@pytest.mark.parametrize(
    ("by_loss", "by_texts", "verdict"),
    [
        # Texts that are better than those of another prompting contradict nothing.
        ({PLAIN: -0.3, EXAMPLES: 0.2}, {PLAIN: "better", EXAMPLES: "not shown"}, "no"),
        ({PLAIN: -0.3, EXAMPLES: 0.2}, {PLAIN: "better", EXAMPLES: "better"}, "undecided"),
        ({PLAIN: 0.3, EXAMPLES: 0.2}, {PLAIN: "better", EXAMPLES: "not shown"}, "no"),
        ({PLAIN: -0.3, EXAMPLES: -0.2}, {PLAIN: "better", EXAMPLES: "worse"}, "undecided"),
        ({PLAIN: -0.3, EXAMPLES: -0.2}, {PLAIN: "better", EXAMPLES: "better"}, "yes"),
    ],
)
def test_loss_and_texts_contradict_each_other_where_they_are_of_one_prompting(
    by_loss: dict[str, float], by_texts: dict[str, str], verdict: str
) -> None:
    limits = {"low": None, "high": None}
    start = {
        name: {"shots": 3, "n": 40, "difference": {"value": gap, **limits}, "p_adjusted": 0.001}
        for name, gap in by_loss.items()
    }
    texts = {
        "metric": "rouge_l",
        "difference": {
            name: {"shots": 3, "verdict": one, "difference": {"value": 0.1, **limits}}
            for name, one in by_texts.items()
        },
    }
    found, sentence, more = answer_of(start, texts)
    assert (found, more) == (verdict, None)
    assert ("but its generated texts are" in sentence) == (verdict == "undecided")
