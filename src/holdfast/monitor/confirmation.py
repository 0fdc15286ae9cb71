"""Confirmation of a verdict by the test rows, after the verdict was fixed.

Training and validation rows fix the label, its cause, its evidence and its remedies. The test rows
may still change how strongly the verdict is stated. Where the same checkpoint scores significantly
differently on them, and that contradicts the label, one of the two samples is unusual by chance.
Then the sentence names both scores, and the confidence is at most the share of the rows that
support the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from holdfast.core.labels import Label
from holdfast.core.records import Verdict
from holdfast.core.wording import p_value_phrase

# Significance level of the single two-sided test of a run.
ALPHA = 0.05
# With this many times more rows in one set, the smaller set is more likely off by chance.
FAR_FEWER = 2.0
# The direction in which test rows contradict a label, by what the label claims about new rows:
# "better" where it claims that their score is lower, or that the validation score is inflated;
# "worse" where it claims that the model generalizes.
CONTRADICTING_DIRECTION: dict[Label, Literal["better", "worse"]] = {
    "overfit": "better",
    "memorizing": "better",
    "underfit": "better",
    "leaking": "better",
    "noisy_labels": "better",
    "healthy": "worse",
    "learning": "worse",
    "miscalibrated": "worse",
}
# These labels claim nothing about new rows other than the validation rows: worse test rows neither
# support nor contradict them.
NOT_SUPPORTED: tuple[Label, ...] = ("underfit", "noisy_labels")
UNTESTED: dict[Label, str] = {
    "diverging": "the verdict is about the learning curves, and the test rows score a single "
    "checkpoint",
    "forgetting": "the verdict is about general text, and the test rows contain none",
    "inconclusive": "an inconclusive verdict makes no claim that test rows could confirm",
}
METRIC_NAMES = {
    "accuracy": "accuracy",
    "exact_match": "share of rows with all labels correct",
    "sentence_accuracy": "share of sentences with all tags correct",
    "mae": "mean absolute error",
    "loss": "loss",
}
RATE_METRICS = ("accuracy", "exact_match", "sentence_accuracy")


def confirm_on_test_rows(verdict: Verdict, comparison: Mapping[str, Any]) -> Verdict:
    """The verdict with ``test_agrees`` and ``test_comparison``. Where the test rows disagree, its
    sentence and confidence are weakened.

    ``comparison`` holds ``metric``, ``valid`` and ``test_rows`` (each ``value`` and ``n``),
    ``difference`` (test − validation), ``p_value`` and the name of the ``test``; or ``why`` there
    is no comparison. A pure function: the values in ``result.json`` give the same result again.
    """
    why = UNTESTED.get(verdict.label) or comparison.get("why")
    if why is not None or comparison.get("p_value") is None:
        known = {**comparison, "why": why or "the validation and test scores were not compared"}
        return replace(verdict, test_agrees=None, test_comparison=known)
    (luck, why_luck), before = _likelier_by_chance(comparison), verdict.confidence
    known = {**comparison, "likelier_luck": luck, "confidence_before": before}
    if comparison["p_value"] >= ALPHA:
        return replace(verdict, test_agrees=True, test_comparison=known)
    agrees = _direction(comparison) != CONTRADICTING_DIRECTION[verdict.label]
    known["because"] = _comparison_words(known) + ("" if agrees else f"; {why_luck}")
    n, m = comparison["valid"]["n"], comparison["test_rows"]["n"]
    begin = (
        "the test rows support this, with a significant difference in the same direction"
        if agrees
        else "the test rows do not confirm this"
    )
    sentence = f"{verdict.because.removesuffix('.')}; {begin}: {known['because']}."
    return replace(
        verdict,
        because=verdict.because if agrees and verdict.label in NOT_SUPPORTED else sentence,
        confidence=before if agrees else min(before, float(n / (n + m))),
        test_agrees=agrees,
        test_comparison=known,
    )


def _direction(comparison: Mapping[str, Any]) -> Literal["better", "worse"]:
    """Whether the score is better or worse on the test rows than on the validation rows."""
    gain = float(comparison["difference"]["value"])
    rises = comparison["metric"] in RATE_METRICS
    return "better" if (gain > 0) == rises else "worse"


def _likelier_by_chance(
    comparison: Mapping[str, Any],
) -> tuple[Literal["valid", "test"] | None, str]:
    """Which set's score is more likely due to chance, and why: the set with far fewer rows; with
    similar sizes the validation set where its score is better, since the checkpoint was chosen on
    it; ``None`` where it may be either."""
    n, m = comparison["valid"]["n"], comparison["test_rows"]["n"]
    conclusion = "so their score is more likely due to chance"
    if n >= FAR_FEWER * m:
        return "test", f"there are far fewer test rows, {conclusion}"
    if m >= FAR_FEWER * n:
        return "valid", f"there are far fewer validation rows, {conclusion}"
    if _direction(comparison) == "worse":
        return "valid", f"the checkpoint was chosen on the validation rows, {conclusion}"
    both = comparison.get("together") or {}
    reason = "either score may be due to chance"
    if both.get("low") is None:
        return None, reason
    value, low, high = (100 * both[key] for key in ("value", "low", "high"))
    together = f"{value:.0f} % (95 % CI {low:.0f}–{high:.0f})"
    return None, f"{reason}, and the score on all rows together is {together}"


def _comparison_words(comparison: Mapping[str, Any]) -> str:
    metric, (valid, test) = comparison["metric"], (comparison[s] for s in ("valid", "test_rows"))
    fold = " (out of fold)" if comparison.get("out_of_fold") else ""
    return (
        f"{METRIC_NAMES.get(metric, metric)} {_format_metric(metric, test['value'])} on "
        f"{test['n']:,} test rows "
        f"and {_format_metric(metric, valid['value'])} on {valid['n']:,} validation rows{fold} "
        f"({p_value_phrase(comparison['p_value'], comparison['test'])})"
    )


def _format_metric(metric: str, value: float) -> str:
    return f"{100 * value:.0f} %" if metric in RATE_METRICS else f"{value:.3g}"
