"""Groups of rows, against fairlearn; candidates before the test rows, false findings rarely."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    false_negative_rate,
    false_positive_rate,
    selection_rate,
)
from scipy import stats
from sklearn.metrics import accuracy_score

from holdfast.analyses.fairness.groups import (
    GroupCandidate,
    Grouping,
    Measure,
    _measure_block,
    _rows_to_settle,
    _test_candidate,
    confirm_gaps,
    find_gaps,
    groupings_of,
    measures_of,
)
from holdfast.contract.predictions import Predictions, SplitName
from holdfast.data.table import Table
from holdfast.stats.two_samples import two_samples

Make = Callable[..., Table]
CLASSES = ("no", "yes")


def told(
    make_table: Make, labels: np.ndarray, answers: np.ndarray, side: SplitName = "test"
) -> Predictions:
    names = np.array(CLASSES)
    table = make_table(
        [f"row {k}" for k in range(len(labels))], names[labels].tolist(), classes=CLASSES
    )
    chances = np.where(answers[:, None] == np.arange(2), 0.9, 0.1)
    said = tuple(names[answers].tolist())
    return Predictions(side, table, np.ones(len(labels)), labels != answers, said, chances, CLASSES)


def rows(n: int, seed: int, gap: float = 0.0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, 2, n), rng.integers(0, 3, n)
    right = rng.random(n) < np.where(groups == 2, 0.85 - gap, 0.85)
    return labels, np.where(right, labels, 1 - labels), [f"g{k}" for k in groups]


def block(told_: Predictions, groups: list[str]) -> dict:
    found = find_gaps(told_, [Grouping("who", groups)])
    return confirm_gaps(found, told_, [Grouping("who", groups)])


def test_every_figure_is_fairlearns(make_table: Make) -> None:
    labels, answers, groups = rows(400, 0, 0.1)
    (table,) = block(told(make_table, labels, answers), groups)["columns"]
    oracle = MetricFrame(
        metrics={
            "accuracy": accuracy_score,
            "positive rate": selection_rate,
            "false-positive rate": false_positive_rate,
            "false-negative rate": false_negative_rate,
        },
        y_true=labels,
        y_pred=answers,
        sensitive_features=groups,
    )
    for group, held in table["groups"].items():
        for one in held["measures"]:
            assert one["value"] == pytest.approx(oracle.by_group.loc[group, one["measure"]])
            assert one["low"] <= one["value"] <= one["high"]
    gaps = {one["measure"]: one["gap"] for one in table["gaps"]}
    for name, gap in oracle.difference(method="between_groups").items():
        assert gaps[name] == pytest.approx(gap)
    parity = demographic_parity_difference(labels, answers, sensitive_features=groups)
    odds = equalized_odds_difference(labels, answers, sensitive_features=groups)
    assert gaps["positive rate"] == pytest.approx(parity)
    larger = max(gaps["false-positive rate"], gaps["false-negative rate"])
    assert larger == pytest.approx(odds)


def test_the_gap_between_two_groups_is_told(make_table: Make) -> None:
    labels, answers, groups = rows(90, 0, 0.1)
    groups = ["g0" if group == "g0" else "others" for group in groups]
    (table,) = block(told(make_table, labels, answers), groups)["columns"]
    oracle = MetricFrame(
        metrics=accuracy_score, y_true=labels, y_pred=answers, sensitive_features=groups
    )
    gaps = {one["measure"]: one for one in table["gaps"]}
    assert gaps["accuracy"]["gap"] == pytest.approx(oracle.difference())
    assert gaps["accuracy"]["most"] == oracle.by_group.idxmax()


def test_a_worse_group_is_found_on_validation_and_confirmed_on_test(make_table: Make) -> None:
    labels, answers, groups = rows(600, 1, 0.3)
    found = find_gaps(told(make_table, labels, answers, "valid"), [Grouping("who", groups)])
    labels, answers, groups = rows(600, 2, 0.3)
    said = confirm_gaps(found, told(make_table, labels, answers), [Grouping("who", groups)])
    first = said["findings"][0]
    assert (first["column"], first["group"], first["measure"]) == ("who", "g2", "accuracy")
    assert first["gap"]["high"] < 0
    assert first["p_adjusted"] < 0.05


def test_a_gap_of_validation_rows_alone_is_not_told(make_table: Make) -> None:
    labels, answers, groups = rows(600, 1, 0.3)
    found = find_gaps(told(make_table, labels, answers, "valid"), [Grouping("who", groups)])
    labels, answers, groups = rows(600, 5)
    said = confirm_gaps(found, told(make_table, labels, answers), [Grouping("who", groups)])
    assert found.candidates
    assert said["findings"] == []
    assert all(one["rows_to_settle"] > 0 for one in said["undecided"])


@pytest.mark.slow
def test_groups_at_random_are_rarely_found(make_table: Make) -> None:
    alarms = 0
    for seed in range(120):
        valid, test = rows(300, 3 * seed), rows(300, 3 * seed + 1)
        random = np.random.default_rng(seed)
        groups = [random.choice(list("abc"), 300).tolist() for _ in range(2)]
        found = find_gaps(told(make_table, *valid[:2], "valid"), [Grouping("who", groups[0])])
        said = confirm_gaps(found, told(make_table, *test[:2]), [Grouping("who", groups[1])])
        alarms += bool(said["findings"])
    # Above it with probability 0.03 where the rate is 5 %.
    assert alarms <= 11


def test_small_groups_are_named_with_the_rows_that_they_need(make_table: Make) -> None:
    labels, answers, groups = rows(200, 0)
    groups[:4] = ["tiny"] * 4
    said = block(told(make_table, labels, answers), groups)
    (small,) = said["small"]
    assert (small["group"], small["valid_rows"]) == ("tiny", 4)
    assert small["rows_to_settle"] > 100


def test_rows_of_one_author_are_no_evidence_of_their_own(make_table: Make) -> None:
    """Forty copies of each of six rows: the plain test is sure, the one by authors is not."""
    labels = np.zeros(240, dtype=np.int64)
    authors = np.repeat(np.arange(6), 40)
    answers = np.where(np.isin(authors, [0, 1, 3]), 1, 0)
    groups = np.where(authors < 3, "a", "b").tolist()
    plain = told(make_table, labels, answers)
    assert block(plain, groups)["findings"]
    names = np.array(CLASSES)
    table = make_table(
        [f"r{k}" for k in range(240)],
        names[labels].tolist(),
        classes=CLASSES,
        groups=[str(k) for k in authors],
    )
    grouped = Predictions(
        "test", table, plain.losses, plain.wrong, plain.predictions, None, CLASSES
    )
    assert block(grouped, groups)["findings"] == []


def test_rows_of_one_author_alone_have_no_interval_and_say_so(make_table: Make) -> None:
    labels, answers, groups = rows(300, 1, 0.4)
    names = np.array(CLASSES)
    table = make_table(
        [f"r{k}" for k in range(300)], names[labels].tolist(), classes=CLASSES, groups=["a"] * 300
    )
    plain = told(make_table, labels, answers)
    one = Predictions("test", table, plain.losses, plain.wrong, plain.predictions, None, CLASSES)
    said = block(one, groups)
    assert said["findings"] == []
    assert said["undecided"][0]["gap"]["why"] == "all these rows are of one unit"
    json.dumps(said, allow_nan=False)


def test_of_many_classes_the_tables_hold_what_was_asked(make_table: Make) -> None:
    rng = np.random.default_rng(0)
    classes = tuple(f"c{k:02}" for k in range(30))
    labels = rng.integers(0, 30, 400)
    table = make_table([f"r{k}" for k in range(400)], [classes[k] for k in labels], classes=classes)
    said_ = tuple(classes[k] for k in labels)
    one = Predictions("test", table, np.ones(400), np.zeros(400, bool), said_, None, classes)
    assert len(measures_of(one)) == 91
    (column,) = block(one, rng.choice(["a", "b"], 400).tolist())["columns"]
    assert all(len(held["measures"]) <= 11 for held in column["groups"].values())


def test_several_labels_are_measured_each(make_table: Make) -> None:
    table = make_table(["a", "b", "c"], ["x", "x", "x"])
    held = table.rows.add_column("labels", [[0], [0, 1], []])
    from dataclasses import replace

    told_ = Predictions(
        "test",
        replace(table, rows=held, names=("p", "q")),
        np.ones(3),
        np.array([False, True, True]),
        (["p"], ["p"], ["q"]),
        np.ones((3, 2)),
        ("p", "q"),
    )
    said = {one.title: one.values[one.applies].tolist() for one in measures_of(told_)}
    assert said["accuracy"] == [1, 0, 0]
    assert said["false-negative rate of q"] == [1]
    assert said["false-positive rate of q"] == [0, 1]
    assert said["false-negative rate of p"] == [0, 0]


def test_two_rows_without_an_error_prove_nothing_where_rows_come_in_units() -> None:
    """0 of 2 rows against 18 of 58, in units of two rows."""
    values = np.array([0.0] * 2 + [1.0, 0.0, 0.0] * 18 + [0.0] * 4)
    groups = Grouping("model", ["small"] * 2 + ["large"] * 58)
    measure = Measure("positive rate", values, np.ones(60, dtype=bool), "human")
    candidate = GroupCandidate("model", "small", "positive rate", "human", False, -0.3)
    units = np.arange(60) // 2
    p, record = _test_candidate(candidate, groups, measure, units)
    gap = record["gap"]
    assert isinstance(gap, dict)
    assert p is not None
    assert p > 0.3
    # Without limits (one unit), or with limits that are as wide as those of two rows.
    assert gap["low"] is None or gap["high"] > 0
    units[:2] = 30, 31
    _, record = _test_candidate(candidate, groups, measure, units)
    gap = record["gap"]
    assert isinstance(gap, dict)
    assert gap["low"] < -0.3
    assert gap["high"] > 0.2


def test_a_group_of_few_units_has_their_degrees_of_freedom() -> None:
    """Three of forty units: Student's t of 2 degrees of freedom, as in ``two_samples``."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), 10)
    values = rng.normal(size=40)[units] + 0.5 * rng.normal(size=400)
    inside = units < 3
    groups = Grouping("who", ["few" if one else "many" for one in inside])
    measure = Measure("error", values, np.ones(400, dtype=bool), rate=False)
    candidate = GroupCandidate("who", "few", "error", None, True, 0.1)
    p, record = _test_candidate(candidate, groups, measure, units)
    oracle = two_samples(values[~inside], values[inside], units[~inside], units[inside])
    gap = record["gap"]
    assert isinstance(gap, dict)
    assert (gap["low"], gap["high"]) == pytest.approx((oracle.low, oracle.high))
    share = oracle.p_value / 2
    assert p == pytest.approx(share if oracle.difference > 0 else 1 - share)


def test_numbers_of_rows_in_units_have_the_interval_of_units() -> None:
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(8), 25)
    errors = np.abs(rng.normal(1, 0.5, 8)[units] + rng.normal(0, 0.1, 200))
    measure = Measure("absolute error", errors, np.ones(200, dtype=bool), rate=False)
    block = _measure_block(measure, np.ones(200, dtype=bool), units)
    means = errors.reshape(8, 25).mean(axis=1)
    low, high = stats.t.interval(0.95, 7, means.mean(), stats.sem(means))
    assert (block["low"], block["high"]) == pytest.approx((low, high))


def test_the_rows_that_would_settle_a_gap_count_units() -> None:
    """Forty units of ten equal rows: ten times as many rows as if all were different."""
    rng = np.random.default_rng(2)
    of_units = np.repeat([0.0, 1.0], 20)[rng.permutation(40)]
    units = np.repeat(np.arange(40), 10)
    groups = Grouping("who", ["a" if one < 20 else "b" for one in units])
    measure = Measure("accuracy", of_units[units], np.ones(400, dtype=bool))
    candidate = GroupCandidate("who", "a", "accuracy", None, False, -0.1)
    alone, by_units = (
        _rows_to_settle(candidate, groups, {("accuracy", None): measure}, 1, given)
        for given in (None, units)
    )
    assert alone is not None
    assert by_units == pytest.approx(10 * alone, rel=0.03)


def test_spaces_and_spellings_of_a_missing_cell_make_no_group() -> None:
    (found,) = groupings_of({"sex": ["f", "f ", "m", "NaN", "", None]}, ["sex", "age"])
    assert list(found.row_groups) == ["f", "f", "m", None, None, None]
    assert found.names == ("f", "m")
