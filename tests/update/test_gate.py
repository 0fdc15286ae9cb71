"""The gate: what is shown decides, and what is not shown says how many rows it would take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.analyses.compare.verdict import PairedRows, judge_pairs, pair_rows
from holdfast.core.errors import RecipeError
from holdfast.core.wording import about
from holdfast.plugins.update.gate import (
    GateRows,
    Subgroup,
    compare_subgroups,
    decide,
    default_margin,
    renamed_classes,
    rows_needed,
)


def held(what: str, only_new: int, only_old: int, both: int, neither: int = 0) -> GateRows:
    """Rows of a class "a", of which so many the new model alone has right, and so on."""
    new = ["a"] * only_new + ["b"] * only_old + ["a"] * both + ["b"] * neither
    old = ["b"] * only_new + ["a"] * only_old + ["a"] * both + ["b"] * neither
    return GateRows(what, pair_rows("class", ["a"] * len(new), new, old))


KEPT = held("old validation rows", 10, 10, 980)
BETTER = held("new rows", 40, 5, 155)


def test_a_clear_gain_that_costs_nothing_is_taken() -> None:
    found = decide([KEPT], BETTER, margin=0.02)
    assert found.decision == "taken"
    assert "+17.5 points (90 % CI +12.2 to +23.2) on 200 new rows" in found.because
    block = found.to_json()
    assert block["old"]["difference"]["low"] > -0.02
    assert (block["new"]["new"], block["new"]["old"]) == (0.975, 0.8)


def test_a_loss_beyond_the_margin_is_kept_aside_with_its_numbers() -> None:
    found = decide([held("old validation rows", 10, 60, 930)], BETTER, margin=0.02)
    assert found.decision == "kept_aside"
    assert found.old[0].outcome == "lost"
    assert "1,000 old validation rows: −5.0 points" in found.because


@pytest.mark.parametrize(
    ("new", "found"), [((5, 40, 155), "worse"), ((0, 0, 300), "no_gain"), ((8, 6, 86), "open")]
)
def test_no_gain_on_new_rows_is_not_taken(new: tuple[int, int, int], found: str) -> None:
    made = decide([KEPT], held("new rows", *new), margin=0.02)
    assert made.new.outcome == found
    assert made.decision == ("undecided" if found == "open" else "kept_aside")


def test_too_few_old_rows_are_no_evidence_and_say_how_many_would_be() -> None:
    found = decide([held("old validation rows", 2, 2, 56)], BETTER, margin=0.02)
    assert found.decision == "undecided"
    needed = found.old[0].rows_needed
    assert needed is not None
    assert needed > 60
    assert f"{about(needed)} such rows" in found.because


def test_a_first_model_that_is_better_than_the_served_one_is_not_forgotten() -> None:
    """A line of updates, each within the margin of the one before it, would add up."""
    first = held("old validation rows, beside the first model", 10, 60, 930)
    found = decide([KEPT, first], BETTER, margin=0.02)
    assert (found.decision, found.old[1].outcome) == ("kept_aside", "lost")
    assert found.to_json()["first"]["found"] == "lost"


def test_a_class_that_is_shown_to_be_worse_keeps_it_aside() -> None:
    inside = np.zeros(1000, dtype=bool)
    # Rows 0 to 9 the new model alone has right, 10 to 19 the old one alone.
    inside[10:60] = True
    found = decide([KEPT], BETTER, [Subgroup("a", "class", inside)], margin=0.05)
    assert found.decision == "kept_aside"
    assert "worse on class a" in found.because
    assert (
        decide([KEPT], BETTER, [Subgroup("a", "class", ~inside)], margin=0.05).decision == "taken"
    )


def test_parts_are_tested_by_the_exact_sign_test_and_holm() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(["a", "b", "c"], 400)
    new, old = (np.where(rng.random(400) < p, labels, "?") for p in (0.7, 0.75))
    one = GateRows("old", pair_rows("class", labels.tolist(), new.tolist(), old.tolist()))
    parts = [Subgroup(name, "class", labels == name) for name in "abc"]
    # By hand: SciPy's binomial test, then Holm's steps one after the other.
    raw = []
    for part in parts:
        gap = one.pairs.gap[part.mask]
        lost, won = int((gap < 0).sum()), int((gap > 0).sum())
        two = stats.binomtest(lost, lost + won).pvalue
        raw.append(two / 2 if lost > won else 1 - two / 2)
    wanted, highest = [0.0] * 3, 0.0
    for step, place in enumerate(np.argsort(raw)):
        highest = max(highest, min(1.0, raw[place] * (3 - step)))
        wanted[place] = highest
    assert [a.p_value for a in compare_subgroups(one, parts)] == pytest.approx(wanted)


def test_what_costs_the_margin_is_taken_in_at_most_five_per_cent() -> None:
    """Simulated by a plain loop: the models differ by the margin in truth."""
    rng, taken = np.random.default_rng(0), 0
    for _ in range(400):
        draw = rng.choice(3, 600, p=[0.03, 0.05, 0.92])
        one = held("old validation rows", *(int((draw == k).sum()) for k in range(3)))
        taken += decide([one], BETTER, margin=0.02).decision == "taken"
    assert stats.binomtest(taken, 400, 0.05, alternative="greater").pvalue > 0.01


def test_the_rows_that_are_asked_for_show_it_with_a_chance_of_eighty_per_cent() -> None:
    rng = np.random.default_rng(1)
    law = [0.04, 0.03, 0.93]
    gap = np.repeat([1.0, -1.0, 0.0], [40, 30, 930])
    rows = rows_needed(gap, -0.02)
    assert rows is not None
    shown = 0
    for _ in range(400):
        draw = rng.choice([1.0, -1.0, 0.0], rows, p=law)
        error = draw.std() / np.sqrt(rows)
        shown += draw.mean() - 1.645 * error > -0.02
    assert 0.74 < shown / 400 < 0.88
    assert rows_needed(np.repeat([-1.0, 0.0], [50, 50]), -0.02) is None


def test_rows_that_are_all_gains_say_how_many_more_would_decide() -> None:
    few, more = rows_needed(np.ones(2), 0.0), rows_needed(np.ones(3), 0.0)
    assert few is not None
    assert more is not None
    assert few > more >= 2


def test_rows_of_groups_that_would_decide_do_decide() -> None:
    """The gate's own test, on as many rows as it asked for, in groups like those it saw."""
    rng = np.random.default_rng(3)
    law = np.repeat([1.0, 0.0, -1.0], [10, 15, 5])
    groups = np.repeat(np.arange(30), 10)
    gap = np.repeat(law, 10)
    pairs = PairedRows("accuracy", True, 0.8, 0.7, gap)
    needed = decide([KEPT], GateRows("new rows", pairs, groups), margin=0.02).new.rows_needed
    assert needed is not None
    many, shown = needed // 10, 0
    for _ in range(200):
        draw = np.repeat(rng.choice(law, many), 10)
        shown += judge_pairs(draw, 0.02, np.repeat(np.arange(many), 10)).verdict == "better"
    # For independent rows and 5 % it was 0.1 of the rows, and a power of 0.2.
    assert 0.72 < shown / 200 < 0.88


def test_by_losses_a_gain_is_seen_that_answers_do_not_show_yet() -> None:
    rng = np.random.default_rng(2)
    few = held("new rows", 14, 8, 128)
    assert decide([KEPT], few, margin=0.02).decision == "undecided"
    gain = rng.normal(0.1, 0.3, 150)
    more = GateRows("new rows", few.pairs, None, gain)
    assert decide([KEPT], more, margin=0.02).decision == "taken"
    # Two ways to be better: 3.7 % by one of them is not enough.
    almost = (gain - gain.mean()) / gain.std() + 1.8 / np.sqrt(150)
    nearly = GateRows("new rows", few.pairs, None, almost)
    assert decide([KEPT], nearly, margin=0.02).decision == "undecided"
    # Losses do not outvote answers that are worse.
    worse = GateRows("new rows", held("new rows", 8, 14, 128).pairs, None, gain)
    assert decide([KEPT], worse, margin=0.02).decision != "taken"


def _rows(n: int, wrong: int, name: str, other: str) -> tuple[list[Any], list[Any]]:
    return [other] * wrong + [name] * (n - wrong), [name] * n


def test_a_class_that_people_call_otherwise_is_told_from_one_that_is_often_wrong() -> None:
    known = _rows(100, 8, "spam", "ham")
    (one,) = renamed_classes(known, _rows(80, 79, "spam", "ham"))
    assert (one.name, one.other, one.n, one.same, one.most) == ("spam", "ham", 80, 1, 79)
    # Wrong in most of its answers is no other name; nor is what was never right.
    assert renamed_classes(known, _rows(80, 60, "spam", "ham")) == ()
    assert renamed_classes(_rows(100, 70, "spam", "ham"), _rows(80, 79, "spam", "ham")) == ()
    assert renamed_classes(known, _rows(12, 12, "spam", "ham")) == ()
    assert decide([KEPT], BETTER, (), [one], margin=0.02).decision == "kept_aside"


@pytest.mark.parametrize(("rows", "points"), [(40, 5.0), (566, 2.8), (5000, 2.0)])
def test_the_usual_margin_goes_by_the_number_of_rows_alone(rows: int, points: float) -> None:
    assert default_margin(rows) == points


@pytest.mark.parametrize("margin", [0.0, -0.01, 1.0, float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(RecipeError, match="above 0 and below 100"):
        decide([KEPT], BETTER, margin=margin)


def test_groups_of_rows_count_once_each() -> None:
    one = held("old validation rows", 0, 60, 540)
    groups = np.concatenate([np.zeros(60, int), 1 + np.arange(540) % 5])
    alone, together = (
        decide([GateRows("old", one.pairs, codes)], BETTER, margin=0.02).old[0]
        for codes in (None, groups)
    )
    assert alone.outcome == "lost"
    assert together.outcome == "open"
    assert together.low < alone.low
