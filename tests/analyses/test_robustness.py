"""Changed texts keep what they say, and what a change costs is judged as SciPy would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from holdfast.analyses.robustness.analysis import ChangedRows, judge_changes
from holdfast.analyses.robustness.perturbations import (
    TEXT_CHANGES,
    add_typing_errors,
    change_case,
    change_contractions,
    perturb,
    why_unavailable,
)
from holdfast.augment.texts.word_edits import negations_of, numbers_of, split

SAID = [
    "I do not think that the 3 cameras from Canon are worth 250 dollars.",
    "it does n't work , and it 's loud .",
    "Never buy this phone again!",
    "Great picture quality, and the battery lasts all day.",
]


@pytest.mark.parametrize("name", TEXT_CHANGES)
@pytest.mark.parametrize("text", SAID)
def test_numbers_and_negations_survive(name: str, text: str) -> None:
    if why_unavailable(name):
        pytest.skip(f"{name}: {why_unavailable(name)}")
    for seed in range(20):
        new = perturb(name, text, np.random.default_rng(seed))
        assert numbers_of(new) == numbers_of(text)
        assert negations_of(split(new)) == negations_of(split(text))
        assert new == perturb(name, text, np.random.default_rng(seed))


@pytest.mark.parametrize("name", [name for name in TEXT_CHANGES if name != "synonyms"])
def test_each_change_changes_some_text(name: str) -> None:
    rng = np.random.default_rng(0)
    assert any(perturb(name, text, rng) != text for text in SAID)


def test_a_slip_stays_inside_free_words() -> None:
    text = "the battery of Canon has 300 shots"
    for seed in range(30):
        new = add_typing_errors(text, np.random.default_rng(seed)).split()
        assert len(new) == 7
        changed = [a for a, b in zip(text.split(), new, strict=True) if a != b]
        assert set(changed) <= {"battery", "shots"}


def test_case_and_contractions_go_both_ways() -> None:
    rng = np.random.default_rng(0)
    assert change_case("Good One", rng) == "good one"
    assert change_case("good one", rng) == "GOOD ONE"
    assert change_contractions("It is fine and I don't mind", rng) == "It's fine and I do not mind"
    assert change_contractions("it does n't work", rng) == "it does not work"
    assert change_contractions("nothing here", rng) == "nothing here"


def test_what_a_change_costs_is_the_exact_paired_test() -> None:
    rng = np.random.default_rng(1)
    before = (rng.random(120) < 0.1).astype(float)
    after = np.where(rng.random(120) < 0.2, 1.0, before)
    flipped = rng.random(120) < 0.3
    found = judge_changes({"one": ChangedRows(before, after, flipped)}, seed=0)["one"]
    worse, better = int((after > before).sum()), int((after < before).sum())
    theirs = binomtest(worse, worse + better, alternative="greater").pvalue
    assert found["p_value"] == pytest.approx(theirs)
    assert found["difference"]["value"] == pytest.approx(after.mean() - before.mean())
    assert found["difference"]["low"] < found["difference"]["value"] < found["difference"]["high"]
    assert found["flipped"]["value"] == pytest.approx(flipped.mean())
    assert found["worse"] == (theirs <= 0.05)


def test_changes_that_cost_nothing_are_called_worse_in_few_runs() -> None:
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(200):
        before = (rng.random(200) < 0.15).astype(float)
        pairs = {}
        for name in TEXT_CHANGES:
            other = (rng.random(200) < 0.15).astype(float)
            swapped = rng.random(200) < 0.2
            after = np.where(swapped, other, before)
            pairs[name] = ChangedRows(before, after, after != before)
        alarms += any(one["worse"] for one in judge_changes(pairs, seed=0).values())
    assert alarms <= 16


def test_a_change_that_changed_no_row_is_said_to() -> None:
    nothing = np.zeros(0)
    found = judge_changes({"one": ChangedRows(nothing, nothing, nothing.astype(bool))}, seed=0)[
        "one"
    ]
    assert found["n"] == 0
    assert found["difference"]["why"] == "no row was changed"
    assert not found["worse"]


def test_losses_in_groups_are_judged_by_groups() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(8), 20)
    before = rng.random(160)
    after = before + np.repeat(rng.normal(0.05, 0.2, 8), 20)
    alone = judge_changes({"one": ChangedRows(before, after, after != before)}, seed=0)["one"]
    by_groups = judge_changes({"one": ChangedRows(before, after, after != before, groups)}, seed=0)[
        "one"
    ]
    width = [one["difference"]["high"] - one["difference"]["low"] for one in (alone, by_groups)]
    assert width[1] > 2 * width[0]


def test_two_rows_are_not_worse_and_equal_groups_count_once_each() -> None:
    def judged(n: int, groups: np.ndarray | None, by: float = 1.0) -> dict[str, Any]:
        rows = ChangedRows(np.zeros(n), np.full(n, by), np.ones(n, bool), groups)
        return judge_changes({"one": rows}, seed=0)["one"]

    for found in (judged(2, np.arange(2)), judged(2, None, 0.3), judged(9, np.arange(9), 0.3)):
        assert (found["worse"], found["p_value"], found["difference"]["low"]) == (False, 1.0, None)
    found = judged(40, np.repeat(np.arange(10), 4))
    assert found["p_value"] == pytest.approx(0.5**10)
    assert found["worse"]
    assert found["difference"]["low"] < 1
