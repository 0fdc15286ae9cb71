"""From which certainty on a model answers: what is chosen, what it promises, what mistakes cost."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.analyses.threshold.analysis import ThresholdRequest, _holds_on_test, answered_block
from holdfast.analyses.threshold.choice import (
    STARTS,
    for_coverage,
    for_precision,
    highest_coverage,
    highest_precision,
)
from holdfast.core.errors import Defect
from holdfast.core.records import to_json
from holdfast.runs.threshold import CostMatrix, ThresholdRule, price_rule
from holdfast.stats.intervals import wilson


def _rows(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Certainties that are honest: a row is right with the chance that it says."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1.0, n)
    return sure, rng.random(n) > sure


def _by_hand(sure: Any, wrong: Any, target: float) -> float | None:
    """Each walk, one prefix at a time, by SciPy's binomial test: two from certain rows at two
    fifths of 5 %, two from half and from all of the rows at a tenth."""
    order = sorted(range(len(sure)), key=lambda i: -sure[i])
    best = None
    early = [
        next(
            m
            for m in range(max(mistakes, 1), 10_000)
            if stats.binom.cdf(mistakes, m, 1 - target) <= 0.02
        )
        for mistakes in STARTS
    ]
    late = [len(order) // 2, len(order)]
    for begin, level in [*((m, 0.02) for m in early), *((m, 0.005) for m in late)]:
        for many in range(begin, len(order) + 1):
            bad = int(sum(wrong[i] for i in order[:many]))
            if stats.binomtest(bad, many, 1 - target, alternative="less").pvalue > level:
                break
            at = float(sure[order[many - 1]])
            best = at if best is None else min(best, at)
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("target", [0.7, 0.85])
def test_the_threshold_is_where_a_walk_ends(seed: int, target: float) -> None:
    sure, wrong = _rows(400, seed)
    found = for_precision(sure, wrong, target)
    assert found.threshold == _by_hand(sure, wrong, target)
    if found.threshold is not None:
        assert found.answered == int((sure >= found.threshold).sum())
        assert found.wrong == int(wrong[sure >= found.threshold].sum())


def test_a_modest_promise_answers_every_row() -> None:
    """Though the surest rows are wrong by chance, so that a walk from them ends at once."""
    wrong = np.zeros(400, dtype=bool)
    wrong[[0, 1, 2, 3, 4, 5]] = True
    wrong[100:400:7] = True
    found = for_precision(np.linspace(1.0, 0.5, 400), wrong, 0.7)
    assert found.answered == 400
    assert found.threshold == 0.5


def test_the_promise_is_kept_in_95_per_cent_of_draws() -> None:
    """Above t honest certainties on (½, 1) are right in (1 + t) ÷ 2."""
    broken = 0
    for seed in range(600):
        found = for_precision(*_rows(300, seed), 0.9)
        broken += found.threshold is not None and (1 + found.threshold) / 2 < 0.9
    # 30 are expected at most; 45 are 2.8 standard errors beyond.
    assert broken <= 45


def test_what_cannot_be_promised_says_what_would() -> None:
    sure, wrong = np.linspace(0.6, 0.99, 30), np.zeros(30, dtype=bool)
    few = for_precision(sure, wrong, 0.95)
    assert few.threshold is None
    # All right, 0.95^n ≤ 0.8 · 0.05 from 63 rows on: a fifth of the error is for later starts.
    assert "0.95 needs 63 rows or more" in str(few.why)
    assert few.rows_needed is not None
    many = for_precision(np.tile(sure, 8), np.tile(wrong, 8), 0.95)
    assert many.threshold == pytest.approx(0.6)
    hopeless = for_precision(*_rows(2000)[:1], np.arange(2000) % 3 == 0, 0.95)
    assert hopeless.threshold is None
    assert "are wrong" in str(hopeless.why)


def test_without_an_error_as_many_rows_are_named_as_are_needed() -> None:
    few = for_precision(np.linspace(0.9, 1, 30), np.zeros(30, dtype=bool), 0.99)
    assert few.rows_needed == int(re.search(r"needs (\d+) rows", str(few.why))[1])  # type: ignore[index]


def test_a_promise_is_made_from_the_number_of_rows_on_that_is_named() -> None:
    for target in (0.8, 0.9, 0.95):
        few = for_precision(np.linspace(0.6, 0.99, 5), np.zeros(5, dtype=bool), target)
        needed = int(re.search(r"needs (\d+) rows or more", str(few.why))[1])  # type: ignore[index]
        for n in (needed - 1, needed):
            made = for_precision(np.linspace(0.6, 0.99, n), np.zeros(n, dtype=bool), target)
            assert (made.threshold is not None) == (n == needed)


def test_the_rows_that_it_asks_for_are_about_enough() -> None:
    needed = [for_precision(*_rows(150, seed), 0.9).rows_needed for seed in range(40)]
    asked = [rows for rows in needed if rows is not None]
    assert len(asked) > 10
    rows = int(np.median(asked))
    made = [for_precision(*_rows(rows, 100 + seed), 0.9).threshold for seed in range(40)]
    assert np.mean([one is not None for one in made]) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "below"), [(40, 0.95), (200, 0.99), (200, 0.9), (5, 0.9)])
@pytest.mark.parametrize("seed", range(3))
def test_the_highest_precision_is_the_highest_of_a_thousand(
    rows: int, below: float, seed: int
) -> None:
    sure, wrong = _rows(rows, seed)
    made = [
        share
        for share in (k / 1000 for k in range(1, 1000))
        if share < below and for_precision(sure, wrong, share).threshold is not None
    ]
    found = highest_precision(sure, wrong, below)
    assert (found[0] if found else None) == (max(made) if made else None)
    if found:
        assert found[1] == for_precision(sure, wrong, found[0])


@pytest.mark.slow
@pytest.mark.parametrize("least", [0.5, 0.8])
def test_the_highest_promise_is_kept_though_the_same_rows_chose_it(least: float) -> None:
    """A row is right with a chance that rises evenly from ``least`` to 1 (0.5), or with 0.8."""
    broken, draws = 0, 200
    for seed in range(draws):
        rng = np.random.default_rng([5, seed])
        sure = rng.random(60)
        chance = least + (1 - least) * sure if least < 0.8 else np.full(60, least)
        found = highest_precision(sure, rng.random(60) >= chance)
        if found is not None:
            share, chosen = found
            assert chosen.threshold is not None
            # The mean chance of rows at or above the threshold.
            kept = least + (1 - least) * (1 + chosen.threshold) / 2 if least < 0.8 else least
            broken += share > kept
    assert stats.binomtest(broken, draws, 0.05, alternative="greater").pvalue > 0.01


def test_of_rows_that_show_nothing_nothing_is_promised() -> None:
    sure = np.linspace(0.5, 1, 30)
    assert highest_precision(sure, np.ones(30, dtype=bool)) is None
    assert highest_precision(sure[:0], np.ones(0, dtype=bool)) is None
    # Rows of one group show nothing of others.
    assert highest_precision(sure, np.zeros(30, dtype=bool), groups=np.zeros(30, int)) is None
    assert highest_coverage(sure[:0], np.ones(0, dtype=bool)) is None


@pytest.mark.parametrize("rows", [1, 14, 60, 200])
def test_the_highest_coverage_is_the_root_of_five_per_cent(rows: int) -> None:
    sure, wrong = _rows(rows)
    found = highest_coverage(sure, wrong)
    assert found is not None
    share, chosen = found
    assert share**rows <= 0.05 < (share + 0.001) ** rows
    assert chosen.threshold == sure.min()


def test_equal_certainties_are_answered_together() -> None:
    sure = np.repeat([0.9, 0.8], 100)
    wrong = np.zeros(200, dtype=bool)
    wrong[150:] = True
    found = for_precision(sure, wrong, 0.9)
    assert (found.threshold, found.answered, found.wrong) == (0.9, 100, 0)


def test_rows_of_a_group_count_as_fewer() -> None:
    sure, wrong = _rows(60)
    sure, wrong = np.repeat(sure, 10), np.repeat(wrong, 10)
    alone = for_precision(sure, wrong, 0.75)
    grouped = for_precision(sure, wrong, 0.75, groups=np.repeat(np.arange(60), 10))
    assert alone.threshold is not None
    assert grouped.threshold is None or grouped.threshold > alone.threshold
    assert for_precision(sure, wrong, 0.75, groups=np.zeros(600, int)).threshold is None


def test_coverage_is_promised_by_the_beta_law() -> None:
    sure, wrong = _rows(200)
    found = for_coverage(sure, wrong, 0.8)
    assert found.answered == next(
        j for j in range(1, 201) if stats.beta.sf(0.8, j, 201 - j) >= 0.95
    )
    kept = [1 - 2 * (for_coverage(*_rows(200, s), 0.8).threshold - 0.5) >= 0.8 for s in range(400)]
    assert np.mean(kept) > 0.92
    few = for_coverage(sure[:5], wrong[:5], 0.8)
    # Five rows show at most what 0.8⁵ = 0.33 leaves: 14 are the first with 0.8ⁿ below 5 %.
    assert (few.threshold, few.rows_needed) == (None, 14)
    assert for_coverage(*_rows(13), 0.8).threshold is None
    assert for_coverage(*_rows(14), 0.8).threshold is not None
    assert for_coverage(sure, wrong, 1.0).threshold == 0
    with pytest.raises(Defect):
        for_coverage(sure, wrong, 1.5)
    with pytest.raises(Defect):
        for_precision(sure, wrong, 1.0)


def _matrix(nobody: float = np.inf) -> CostMatrix:
    cost = np.array([[0.0, 1.0, nobody], [8.0, 0.0, nobody]])
    return CostMatrix(("no", "yes"), cost)


def test_the_least_costly_answer() -> None:
    chances = np.array([[0.95, 0.05], [0.8, 0.2], [0.5, 0.5]])
    # "no" costs 8 p(yes), "yes" costs p(no): they meet at p(yes) = 1/9.
    assert _matrix().choose(chances).tolist() == [0, 1, 1]
    # None costs 0.45: less than "yes" at p(no) = 0.8 and 0.5, more than "no" at p(yes) = 0.05.
    assert _matrix(0.45).choose(chances).tolist() == [0, -1, -1]
    alike = CostMatrix(("a", "b"), np.array([[0.0, 1.0, np.inf], [1.0, 0.0, np.inf]]))
    rng = np.random.default_rng(0).dirichlet([1, 1], 50)
    assert alike.choose(rng).tolist() == rng.argmax(axis=1).tolist()


def test_what_is_paid_lies_below_its_limit() -> None:
    rng = np.random.default_rng(3)
    chance = rng.random(400)
    labels = (rng.random(400) < chance).astype(int)
    found = price_rule(_matrix(0.4), labels, np.column_stack([1 - chance, chance]))
    answers = _matrix(0.4).choose(np.column_stack([1 - chance, chance]))
    by_hand = [
        0.4 if a < 0 else 0 if a == y else 8 if y else 1
        for a, y in zip(answers, labels, strict=True)
    ]
    assert found.mean == pytest.approx(np.mean(by_hand))
    assert found.mean < found.plain
    assert found.mean < found.limit < 2
    assert found.limit < found.plain_limit
    assert found.plain < found.plain_limit
    assert found.answered == int((answers >= 0).sum())


def test_the_limit_of_a_cost_holds_for_rows_sorted_by_class() -> None:
    matrix, broken, draws = _matrix(0.4), 0, 60
    expected = price_rule(matrix, *_sorted_by_class(np.random.default_rng(99), 40_000)).mean
    for seed in range(draws):
        drawn = _sorted_by_class(np.random.default_rng(seed), 300)
        broken += price_rule(matrix, *drawn).limit < expected
    assert broken <= 0.05 * draws


def _sorted_by_class(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """The errors are all in the last class, which the model sometimes denies with certainty."""
    labels = np.sort(rng.integers(0, 2, n))
    chance = np.where(labels == 0, rng.beta(1, 30, n), rng.beta(8, 2, n))
    chance[(labels == 1) & (rng.random(n) < 0.12)] = 0.005
    return labels, np.column_stack([1 - chance, chance])


def test_a_rule_is_what_was_written_of_it() -> None:
    chances = np.array([[0.95, 0.05], [0.5, 0.5]])
    for rule in (
        ThresholdRule("precision", 0.7),
        ThresholdRule("cost", None, _matrix(0.45)),
        ThresholdRule("cost", None, _matrix()),
    ):
        again = ThresholdRule.of(json.loads(json.dumps(to_json(rule.to_json()))))
        given = (["no", "no"], [0.95, 0.5], chances)
        assert again.apply(*given) == rule.apply(*given)
    said, sure, why = ThresholdRule("precision", 0.7).apply(["no", "yes"], [0.95, None], None)
    assert (said, sure) == (["no", None], [0.95, None])
    assert why[0] is None
    assert "ask a person" in str(why[1])
    said, sure, why = ThresholdRule("cost", None, _matrix()).apply(
        ["no", "no"], [0.95, 0.5], chances
    )
    assert (said, sure) == (["no", "yes"], [0.95, 0.5])
    with pytest.raises(ValueError, match="by must be"):
        ThresholdRule.of({"by": "magic", "threshold": 1, "matrix": None})


def test_a_row_as_sure_as_the_threshold_is_answered() -> None:
    """It was counted among the rows that the promise is of."""
    said, sure, why = ThresholdRule("precision", 0.5).apply(
        ["a", "b", "c"], [0.5, 0.499, None], None
    )
    assert said == ["a", None, None]
    assert sure == [0.5, 0.499, None]
    assert why[0] is None
    assert all(why[1:])


def test_rows_of_groups_contradict_a_guarantee_only_if_their_groups_do() -> None:
    right = np.array([True] * 15 + [False] * 5)
    rows, groups = np.repeat(right, 10), np.repeat(np.arange(20), 10)
    given = np.repeat(np.arange(20) % 10 > 0, 10)
    request = ThresholdRequest(precision=0.88)
    single = answered_block(given, rows & given)
    by_groups = answered_block(given, rows & given, groups)
    assert (_holds_on_test(single, request), _holds_on_test(by_groups, request)) == (False, True)
    # Copies of one row are one row; their number is that of the groups, with Student's t.
    right = right[np.arange(20) % 10 > 0]
    effect = 18 / 17
    limits = wilson(right.sum() / effect, 18 / effect, quantile=stats.t.ppf(0.975, 17))
    assert (by_groups["precision"]["low"], by_groups["precision"]["high"]) == pytest.approx(limits)
    one = answered_block(given[:10] | True, rows[:10], groups[:10])
    assert (one["precision"]["low"], _holds_on_test(one, request)) == (None, None)


def test_the_precision_of_groups_is_covered_by_its_interval() -> None:
    seed, groups, covered, contradicted = (
        np.random.default_rng(0),
        np.repeat(np.arange(30), 10),
        0,
        0,
    )
    for _ in range(500):
        right = seed.random(300) < seed.beta(4.5, 0.5, 30)[groups]
        found = answered_block(np.ones(300, bool), right, groups)
        covered += found["precision"]["low"] <= 0.9 <= found["precision"]["high"]
        contradicted += not _holds_on_test(found, ThresholdRequest(precision=0.9))
    assert covered / 500 > 0.92
    assert contradicted / 500 < 0.05
