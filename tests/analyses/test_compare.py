"""Two models on the same rows: the verdict, what goes into it, and the same row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.analyses.compare.verdict import (
    by_class,
    differing_rows,
    judge_pairs,
    pair_rows,
    required_rows,
)


def _gap(first: int, second: int, n: int) -> Any:
    return np.array([1.0] * first + [-1.0] * second + [0.0] * (n - first - second))


@pytest.mark.parametrize(("first", "second"), [(20, 6), (6, 20), (15, 8), (3, 3), (0, 0)])
def test_better_and_worse_go_by_the_exact_sign_test(first: int, second: int) -> None:
    found = judge_pairs(_gap(first, second, 300), 0.01)
    total = first + second
    exact = stats.binomtest(first, total).pvalue if total else 1.0
    assert found.p_value == pytest.approx(exact)
    said = "undecided" if exact > 0.05 else "better" if first > second else "worse"
    assert found.verdict == said
    assert (found.low > 0, found.high < 0) == (said == "better", said == "worse")
    assert (found.only_first, found.only_second) == (first, second)


def test_models_that_agree_are_equivalent_only_where_the_rows_can_show_it() -> None:
    few, many = judge_pairs(_gap(1, 1, 100), 0.01), judge_pairs(_gap(4, 5, 2000), 0.01)
    assert few.verdict == "undecided"
    assert many.verdict == "equivalent"
    assert -0.01 < many.equivalence_limits[0] < many.equivalence_limits[1] < 0.01
    assert judge_pairs(_gap(4, 5, 2000), 0.001).verdict == "undecided"


def test_a_proven_difference_below_the_margin_is_a_difference() -> None:
    found = judge_pairs(_gap(60, 20, 20_000), 0.01)
    assert found.verdict == "better"
    assert found.value < found.margin


def test_numbers_go_by_students_t() -> None:
    gap = np.random.default_rng(1).normal(0.1, 1, 200)
    found = judge_pairs(gap, 0.01)
    interval = stats.ttest_1samp(gap, 0).confidence_interval(0.95)
    assert found.p_value == pytest.approx(stats.ttest_1samp(gap, 0).pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.only_first is None


def test_rows_of_a_group_count_together() -> None:
    gap = _gap(30, 8, 300)
    each = judge_pairs(gap, 0.01, np.arange(300))
    copies = judge_pairs(np.repeat(gap, 5), 0.01, np.repeat(np.arange(300), 5))
    assert (copies.low, copies.high) == pytest.approx((each.low, each.high))
    alone = stats.ttest_1samp(gap, 0).confidence_interval(0.95)
    assert (each.low, each.high) == pytest.approx((alone.low, alone.high))
    two = judge_pairs(gap, 0.01, np.arange(300) % 2)
    assert two.verdict == "undecided"
    assert two.why is not None


def test_without_rows_or_with_few_it_says_why() -> None:
    assert "no rows" in str(judge_pairs(np.zeros(0), 0.01).why)
    assert "20 rows" in str(judge_pairs(np.array([0.3, -0.2]), 0.01).why)
    assert "not finite" in str(judge_pairs(np.array([np.nan] * 30), 0.01).why)
    # Nothing is known of how they differ where no row shows a difference.
    alike = judge_pairs(np.full(40, 0.25), 0.01)
    assert alike.verdict == "undecided"


@pytest.mark.parametrize("true", [0.0, 0.04])
def test_the_rows_that_it_names_settle_it_mostly(true: float) -> None:
    rng, settled, asked = np.random.default_rng(3), [], []
    chances = [0.05 + true / 2, 0.05 - true / 2, 0.9]
    for _ in range(60):
        gap = rng.choice([1.0, -1.0, 0.0], size=200, p=chances)
        found = judge_pairs(gap, 0.03)
        if found.verdict == "undecided":
            assert found.rows_needed is not None
            asked.append(found.rows_needed)
            more = rng.choice([1.0, -1.0, 0.0], size=found.rows_needed - 200, p=chances)
            settled.append(judge_pairs(np.r_[gap, more], 0.03).verdict != "undecided")
    assert len(settled) > 20
    assert min(asked) > 200
    assert np.mean(settled) > 0.6


def test_more_rows_are_asked_for_a_smaller_margin_and_whole_groups() -> None:
    gap = _gap(10, 10, 200)
    wide, fine = required_rows(gap, 0.02), required_rows(gap, 0.01)
    assert wide is not None
    assert fine is not None
    assert fine > 2 * wide
    grouped = required_rows(np.repeat(gap, 4), 0.02, np.repeat(np.arange(200), 4))
    assert grouped == pytest.approx(4 * wide, rel=0.1)
    assert required_rows(np.zeros(0), 0.01) is None
    assert required_rows(np.array([1.0]), 0.01) is not None


def _random_sets(rng: Any, n: int, names: list[str]) -> list[list[str]]:
    return [[name for name in names if rng.random() < 0.4] for _ in range(n)]


def test_f1_of_label_sets_is_scikit_learns_and_its_parts_are_influences() -> None:
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    rng, names = np.random.default_rng(0), ["a", "b", "c"]
    labels, one, two = (_random_sets(rng, 80, names) for _ in range(3))
    found = pair_rows("several", labels, one, two)
    to = MultiLabelBinarizer(classes=names).fit([names]).transform

    def f1(said: list[list[str]], rows: Any = slice(None)) -> float:
        return float(f1_score(to(labels)[rows], to(said)[rows], average="micro"))

    assert (found.first, found.second) == pytest.approx((f1(one), f1(two)))
    assert found.gap.mean() == pytest.approx(found.first - found.second)
    # The jackknife leaves one row out and asks scikit-learn again.
    others = [np.delete(np.arange(80), i) for i in range(80)]
    left = np.array([f1(one, at) - f1(two, at) for at in others])
    influence = 79 * (left.mean() - left)
    assert np.corrcoef(influence, found.gap)[0, 1] > 0.999
    assert found.gap.std() == pytest.approx(influence.std(), rel=0.05)


def test_tags_numbers_and_texts() -> None:
    labels = [["B-PER", "I-PER", "O"], ["O", "B-LOC"]]
    tags = pair_rows("tags", labels, labels, [["B-PER", "O", "O"], ["O", "B-LOC"]])
    # One of two entities found, two said: precision and recall a half.
    assert (tags.first, tags.second) == (1.0, 0.5)
    # No answer, or one of another length, finds nothing: it is not the first tag of the alphabet.
    whole = [["B-A", "O"], ["B-B"]]
    for lacking in (None, ["B-A"]):
        assert pair_rows("tags", whole, [lacking, ["B-B"]], whole).first == pytest.approx(2 / 3)
    numbers = pair_rows("number", [1.0, 3.0], [1.5, 3.0], [3.0, 3.0])
    assert (numbers.first, numbers.second) == (0.25, 1.0)
    assert numbers.gap.mean() * numbers.scale == pytest.approx(0.25 - 1.0)
    assert numbers.gap.mean() > 0
    texts = pair_rows("text", ["a good day", "no"], ["a good day", "no"], ["a bad day", ""])
    assert texts.first == pytest.approx(1.0)
    assert texts.second == pytest.approx((2 / 3 + 0) / 2)
    assert pair_rows("class", ["x", "y"], ["x", None], ["y", "y"]).gap.tolist() == [1.0, -1.0]


def test_where_they_differ() -> None:
    labels = ["x"] * 30 + ["y"] * 30
    pairs = pair_rows("class", labels, ["x"] * 60, ["y"] * 15 + ["x"] * 15 + ["y"] * 30)
    rows = np.arange(100, 160)
    said = ["x"] * 60, ["y"] * 15 + ["x"] * 15 + ["y"] * 30
    found = differing_rows(pairs, rows, ["t" * 400] * 60, labels, *said)
    assert [line["row"] for line in found["a_better"]] == list(range(100, 110))
    assert found["b_better"][0] == {
        "row": 130,
        "text": "t" * 299 + "…",
        "label": "y",
        "a": "x",
        "b": "y",
    }
    classes = by_class(pairs, labels)
    assert classes is not None
    assert [line["class"] for line in classes] == ["y", "x"]
    assert classes[0]["p_value"] == pytest.approx(2 * stats.binomtest(0, 30).pvalue)
    assert by_class(pair_rows("number", [1.0], [1.0], [2.0]), [1.0]) is None


def test_a_class_whose_rows_come_in_groups_is_tested_by_groups() -> None:
    sizes = np.array([5, 3, 8, 2, 6, 4, 7, 1])
    groups, labels = np.repeat(np.arange(8), sizes), np.repeat([*"xxxxxxyy"], sizes)
    first = np.where(np.isin(groups, [0, 3]), "?", labels)
    second = np.where(np.isin(groups, [1, 2, 4, 6]), "?", labels)
    pairs = pair_rows("class", list(labels), list(first), list(second))
    found = {line["class"]: line for line in by_class(pairs, list(labels), groups) or ()}
    own = labels == "x"
    totals = np.bincount(groups[own], pairs.gap[own] - pairs.gap[own].mean())
    t = pairs.gap[own].mean() / np.sqrt(6 / 5 * (totals**2).sum()) * own.sum()
    freedom = sizes[:6].sum() ** 2 / (sizes[:6] ** 2).sum() - 1
    assert found["x"]["p_value"] == pytest.approx(min(1, 2 * 2 * stats.t.sf(abs(t), freedom)))
    assert (found["x"]["only_a"], found["x"]["only_b"]) == (17, 7)
    # Two groups show nothing, though the models differ in seven of eight rows.
    assert (found["y"]["only_a"], found["y"]["p_value"]) == (7, 1.0)


def test_a_missing_number_counts_as_the_mean_of_the_labels() -> None:
    found = pair_rows("number", [10.0, 20.0, 60.0], [10.0, None, 60.0], [10.0, 20.0, 30.0])
    assert found.first == pytest.approx(10 / 3)
    assert found.second == pytest.approx(10)
