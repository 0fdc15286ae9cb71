"""What test rows may change of a verdict: its sentence and its strength, never what it is."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from holdfast.analyses.row_scores import RowScores, compare_scores, comparison_block
from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Remedy, Verdict, to_json
from holdfast.monitor.confirmation import (
    CONTRADICTING_DIRECTION,
    NOT_SUPPORTED,
    UNTESTED,
    confirm_on_test_rows,
)
from holdfast.monitor.judge import judge

LABELS = get_args(Label)


def verdict(label: Label = "memorizing") -> Verdict:
    return Verdict(
        label,
        "Validation rows are far behind.",
        0.95,
        20,
        "too few rows",
        (Evidence("gap", 0.2),),
        (Remedy("label more rows", ("train.epochs=2",)),),
    )


def scores(right: int, n: int, metric: str = "accuracy") -> RowScores:
    return RowScores(metric, (np.arange(n) < right).astype(float))


def comparison(valid: RowScores, test: RowScores) -> dict[str, Any]:
    return comparison_block(valid.metric, compare_scores(valid, test), ("valid", "test_rows"))


def test_the_run_of_73_and_93_percent_tells_one_story() -> None:
    found = confirm_on_test_rows(verdict(), comparison(scores(33, 45), scores(42, 45)))
    assert found.test_agrees is False
    p = 2 * fisher_exact([[33, 12], [42, 3]], "less").pvalue
    assert found.test_comparison is not None
    assert found.test_comparison["p_value"] == pytest.approx(p)
    both = binomtest(75, 90).proportion_ci(method="wilson")
    for words in (
        "Validation rows are far behind; the test rows do not confirm this",
        "accuracy 93 % on 45 test rows and 73 % on 45 validation rows",
        f"Fisher's exact test, p = {p:.2g}",
        f"on all rows together is 83 % (95 % CI {100 * both.low:.0f}–{100 * both.high:.0f})",
    ):
        assert words in found.because
    # Half of the rows speak for the label.
    assert found.confidence == 0.5
    assert found.test_comparison["confidence_before"] == 0.95


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("pair", [(33, 42), (42, 33), (40, 40)])
def test_label_cause_evidence_and_remedies_never_change(
    label: Label, pair: tuple[int, int]
) -> None:
    before = verdict(label)
    after = confirm_on_test_rows(before, comparison(scores(pair[0], 45), scores(pair[1], 45)))
    for name in ("label", "since_step", "cause", "evidence", "remedies", "harm"):
        assert getattr(after, name) == getattr(before, name)
    assert after.confidence <= before.confidence
    assert (after.test_agrees is None) == (label in UNTESTED)
    if label in CONTRADICTING_DIRECTION:
        against = {"better": (33, 42), "worse": (42, 33)}[CONTRADICTING_DIRECTION[label]]
        assert after.test_agrees == (pair != against)
        silent = label in NOT_SUPPORTED and pair != against
        assert (after.because == before.because) == (pair == (40, 40) or silent)
        assert ("due to chance" in after.because) == (pair == against)
        assert (after.confidence < before.confidence) == (pair == against)
    else:
        assert after.because == before.because
        assert after.test_comparison is not None
        assert after.test_comparison["why"]


def test_every_label_has_a_rule() -> None:
    assert set(CONTRADICTING_DIRECTION) | set(UNTESTED) == set(LABELS)
    assert not set(CONTRADICTING_DIRECTION) & set(UNTESTED)


@pytest.mark.parametrize(
    ("valid", "test", "label", "words"),
    [
        ((20, 40), (290, 300), "memorizing", "far fewer validation rows"),
        ((160, 300), (38, 40), "memorizing", "far fewer test rows"),
        ((90, 100), (60, 100), "healthy", "was chosen on the validation rows"),
    ],
)
def test_the_likelier_luck_is_named(valid: Any, test: Any, label: Label, words: str) -> None:
    found = confirm_on_test_rows(verdict(label), comparison(scores(*valid), scores(*test)))
    assert found.test_agrees is False
    assert words in found.because
    assert found.confidence == pytest.approx(min(0.95, valid[1] / (valid[1] + test[1])))


@pytest.mark.parametrize(("metric", "agrees"), [("loss", True), ("mae", True), ("accuracy", False)])
def test_a_lower_loss_is_a_better_one(metric: str, agrees: bool) -> None:
    rng = np.random.default_rng(0)
    low, high = rng.beta(2, 5, 80), rng.beta(5, 2, 80)
    found = confirm_on_test_rows(
        verdict(), comparison(RowScores(metric, low), RowScores(metric, high))
    )
    assert found.test_agrees is agrees


def test_what_was_stored_gives_the_same_again() -> None:
    """``diagnose`` has the stored comparison alone."""
    for label in LABELS:
        for right in (33, 42):
            first = confirm_on_test_rows(
                verdict(label), comparison(scores(right, 45), scores(42, 45))
            )
            stored = to_json(first)["test_comparison"]
            assert confirm_on_test_rows(verdict(label), stored) == first


def test_where_nothing_was_compared_there_is_a_why() -> None:
    found = confirm_on_test_rows(verdict(), {"why": "no test rows were set aside"})
    assert found.test_agrees is None
    assert found.because == verdict().because
    assert to_json(found)["test_comparison"]["why"] == "no test rows were set aside"
    assert "test_agrees" not in to_json(verdict())


def test_rows_that_were_known_before_any_update_are_said_to_be(history: Any) -> None:
    """A last layer that is fitted to the training rows has them right at step 0."""
    from holdfast.core.run_facts import RunFacts

    n = 60
    right = np.arange(n) < 42
    looks = history([0.05, 0.03, 0.02, 0.01, 0.01], [0.7] * 5, n=n, noise=0.02)
    seen = [replace_hits(look, np.ones(n, bool), right) for look in looks]
    found = judge(seen, RunFacts())
    assert (found.label, found.since_step) == ("memorizing", 0)
    assert (
        "at step 0, before the first update, accuracy was already 100 % on training rows (the last "
        "layer is fitted to them) and 70 % on validation rows"
    ) in found.because
    late = [replace_hits(looks[0], np.arange(n) < 40, right), *seen[1:]]
    found = judge(late, RunFacts())
    assert (found.label, found.since_step) == ("memorizing", 100)
    assert "step 0" not in found.because


def replace_hits(look: Any, train: Any, valid: Any) -> Any:
    import dataclasses

    return dataclasses.replace(look, train_correct=train, valid_correct=valid)
