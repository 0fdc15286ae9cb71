from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from holdfast.core.records import Outputs
from holdfast.metrics import METRICS, find_metric
from holdfast.metrics.comparison import compare
from holdfast.metrics.resample import FEWEST_GROUPS
from holdfast.metrics.score import score
from holdfast.stats.intervals import wilson

AVERAGES = ("precision_macro", "recall_macro", "f1_macro", "f1_weighted")


def make(seed: int, n: int, classes: int, scale: float = 1.5, groups=None) -> Outputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = (rng.normal(size=(n, classes)) + scale * np.eye(classes)[labels]).astype(np.float32)
    wide = logits.astype(np.float64)
    losses = np.log(np.exp(wide).sum(1)) - wide[np.arange(n), labels]
    return Outputs(np.arange(n), labels, logits, losses, groups)


def names(classes: int) -> tuple[str, ...]:
    return tuple(f"class {i:02}" for i in range(classes))


@pytest.mark.parametrize("classes", [2, 5])
def test_values_are_scikit_learns(classes: int) -> None:
    o = make(0, 250, classes)
    metrics = score(o, names(classes)).metrics
    for name in AVERAGES:
        kind, average = name.split("_")
        function = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
        expected = function[kind](o.labels, o.predictions, average=average)
        assert metrics[name].value == pytest.approx(expected)
    assert metrics["accuracy"].value == pytest.approx(np.mean(o.labels == o.predictions))
    assert metrics["loss"].value == pytest.approx(o.losses.mean())
    if classes == 2:
        auc = sk.roc_auc_score(o.labels, o.logits[:, 1] - o.logits[:, 0])
        assert metrics["roc_auc"].value == pytest.approx(auc)


@pytest.mark.parametrize("classes", [2, 5])
def test_every_interval_holds_its_value_and_has_width(classes: int) -> None:
    for name, estimate in score(make(0, 250, classes), names(classes)).metrics.items():
        assert estimate.low is not None, name
        assert estimate.low < estimate.value < estimate.high, name


def test_two_classes_have_rankings_and_more_have_none() -> None:
    two, three = score(make(0, 50, 2), names(2)), score(make(0, 50, 3), names(3))
    assert {"roc_auc", "average_precision"} <= set(two.metrics)
    assert "roc_auc" not in three.metrics
    assert "positive class: class 01" in (two.metrics["roc_auc"].note or "")


def test_a_perfect_ranking_rests_on_the_rows_of_the_rarer_class() -> None:
    """Two of 45 rows: the exact limit is that of two of two (SciPy's)."""
    o = make(0, 45, 2)
    labels = (np.arange(45) < 2).astype(np.int64)
    logits = np.stack([-9.0 * labels, 9.0 * labels - 4], axis=1).astype(np.float32)
    found = score(replace(o, labels=labels, logits=logits), names(2)).metrics
    limit = binomtest(2, 2).proportion_ci(method="exact").low
    for name in ("roc_auc", "average_precision"):
        assert (found[name].value, found[name].high) == (1.0, 1.0)
        assert found[name].low == pytest.approx(limit)


def test_accuracy_has_wilsons_interval() -> None:
    o = make(1, 60, 3)
    right = int((o.labels == o.predictions).sum())
    estimate = score(o, names(3)).metrics["accuracy"]
    assert (estimate.low, estimate.high) == pytest.approx(wilson(right, 60))


@pytest.mark.parametrize(("n", "unreliable"), [(99, True), (100, False)])
def test_resampled_intervals_below_a_hundred_rows_say_so(n: int, unreliable: bool) -> None:
    metrics = score(make(0, n, 2), names(2)).metrics
    for name in (*AVERAGES, "loss", "roc_auc", "ece"):
        assert ("unreliable" in (metrics[name].note or "")) == unreliable, name
    assert "unreliable" not in (metrics["accuracy"].note or "")


@pytest.mark.parametrize(
    ("n", "classes", "per_group", "why"),
    [
        (200, 20, 0, "unreliable: a class has 10.0 rows on average"),
        (400, 20, 0, ""),
        (100, 10, 0, ""),
        (200, 10, 4, "unreliable: a class has 5 groups"),
        (400, 10, 4, ""),
    ],
)
def test_macro_averages_say_where_their_intervals_are_too_narrow(
    n: int, classes: int, per_group: int, why: str
) -> None:
    groups = np.arange(n) // per_group if per_group else None
    labels = (np.arange(n) // max(per_group, 1)) % classes
    logits = np.random.default_rng(0).normal(size=(n, classes)).astype(np.float32)
    found = score(Outputs(np.arange(n), labels, logits, np.ones(n), groups), names(classes))
    for name in AVERAGES[:3]:
        assert why in (found.metrics[name].note or "")
        assert ("unreliable: a class" in (found.metrics[name].note or "")) == bool(why)
    for name in ("accuracy", "f1_weighted"):
        assert "unreliable: a class" not in (found.metrics[name].note or "")


@pytest.mark.parametrize("classes", [2, 4])
def test_no_rows_give_nothing_and_say_why(classes: int) -> None:
    empty = make(0, 0, classes)
    scores = score(empty, names(classes), extra_metrics=(METRICS["brier"],))
    assert scores.n == 0
    assert set(scores.metrics) == set(
        score(make(0, 30, classes), names(classes), extra_metrics=(METRICS["brier"],)).metrics
    )
    for estimate in scores.metrics.values():
        assert estimate.to_json() == {
            "value": None,
            "low": None,
            "high": None,
            "why": "there are no rows",
        }


@pytest.mark.parametrize("n", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("grouped", [False, True])
def test_tiny_samples_give_plain_json_without_warnings(n: int, classes: int, grouped) -> None:
    groups = np.array([f"g{i // 2}" for i in range(n)]) if grouped else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = score(make(n, n, classes, groups=groups), names(classes)).to_json()
    text = json.dumps(record, allow_nan=False)
    assert "NaN" not in text
    for estimate in record["metrics"].values():
        assert ("why" in estimate) == (estimate["low"] is None)


def test_one_class_of_two_leaves_rankings_undefined() -> None:
    o = make(0, 40, 2)
    one = Outputs(o.rows, np.zeros(40, dtype=int), o.logits, o.losses)
    assert score(one, names(2)).metrics["roc_auc"].value is None


def test_tables_have_the_shape_of_the_record() -> None:
    o = make(0, 300, 4)
    record = score(o, names(4)).to_json()
    counts = np.array(record["confusion"]["counts"])
    assert np.array_equal(counts, sk.confusion_matrix(o.labels, o.predictions))
    assert record["confusion"]["classes"] == list(names(4))
    bins = record["reliability"]["bins"]
    assert sum(b["n"] for b in bins) == 300
    gap = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / 300
    assert gap == pytest.approx(record["metrics"]["ece"]["value"])
    assert all(b["low"] <= b["confidence"] <= b["high"] for b in bins)
    for index, (name, row) in enumerate(record["per_class"].items()):
        assert name == names(4)[index]
        assert row["n"] == int((o.labels == index).sum())
        expected = sk.f1_score(o.labels, o.predictions, labels=[index], average="macro")
        assert row["f1"]["value"] == pytest.approx(expected)
        assert row["f1"]["low"] < row["f1"]["value"] < row["f1"]["high"]


def test_an_absent_class_is_undefined_and_left_out_of_the_mean() -> None:
    o = make(0, 200, 3)
    wider = np.column_stack([o.logits, np.full(200, -50.0, dtype=np.float32)])
    scores = score(Outputs(o.rows, o.labels, wider, o.losses), names(4))
    assert scores.extra["per_class"]["class 03"]["f1"].value is None
    assert scores.extra["per_class"]["class 03"]["recall"].value is None
    assert scores.metrics["f1_macro"].value == pytest.approx(
        sk.f1_score(o.labels, o.predictions, average="macro")
    )


def test_a_flawless_sample_is_not_reported_as_certain() -> None:
    perfect = make(0, 50, 2, scale=40)
    metrics = score(perfect, names(2)).metrics
    for name in ("accuracy", *AVERAGES):
        assert metrics[name].value == 1.0
        assert metrics[name].low < 0.98, name
        assert metrics[name].high == 1.0


def test_copied_groups_widen_every_interval() -> None:
    base = make(0, 150, 3)
    rows = np.repeat(np.arange(150), 4)
    copied = Outputs(np.arange(600), base.labels[rows], base.logits[rows], base.losses[rows])
    grouped = Outputs(copied.rows, copied.labels, copied.logits, copied.losses, rows.astype(str))
    naive, honest = score(copied, names(3)).metrics, score(grouped, names(3)).metrics
    for name in ("accuracy", "f1_macro", "loss"):
        wider = (honest[name].high - honest[name].low) / (naive[name].high - naive[name].low)
        assert wider == pytest.approx(2.0, rel=0.2), name
        assert "groups" in (honest[name].note or ""), name


@pytest.mark.parametrize("groups", range(1, FEWEST_GROUPS + 1))
def test_few_groups_give_values_without_intervals_and_say_why(groups: int) -> None:
    few = groups < FEWEST_GROUPS
    codes = np.array([f"g{i % groups}" for i in range(60 * groups)])
    made = make(0, 60 * groups, 2, groups=codes)
    scores = score(made, names(2), extra_metrics=(METRICS["brier"],))
    every = {**scores.metrics, **scores.extra["per_class"]["class 00"]}
    del every["n"]
    for name, estimate in every.items():
        assert estimate.value is not None, name
        # Rates and ECE have intervals of their own, which hold from two groups on.
        none = groups == 1 or (few and name not in ("accuracy", "precision", "recall", "ece"))
        assert (estimate.low is None) == (estimate.high is None) == none, name
        assert ("no interval" in (estimate.why or "")) == none, name
    other = make(1, 60 * groups, 2, groups=codes)
    other = Outputs(made.rows, made.labels, other.logits, other.losses, codes)
    found = compare(made, other)
    assert (found["p_value"] is None) == (found["difference"].low is None) == few
    assert ("leave-one-group-out" in found["because"]) == few


def test_a_users_metric_stands_beside_the_others(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def errors(labels, predictions, probabilities):\n"
        "    return float((labels != predictions).mean())\n"
    )
    o = make(0, 150, 2)
    metrics = score(o, names(2), extra_metrics=(find_metric(f"{path}:errors:lower"),)).metrics
    assert metrics["errors"].value == pytest.approx(1 - metrics["accuracy"].value)
    assert metrics["errors"].low == pytest.approx(1 - metrics["accuracy"].high, abs=0.03)


def test_the_same_seed_gives_the_same_record() -> None:
    o = make(0, 120, 3)
    assert score(o, names(3), seed=1) == score(o, names(3), seed=1)
    assert score(o, names(3), seed=1) != score(o, names(3), seed=2)


def test_a_higher_level_is_wider() -> None:
    o = make(0, 200, 2)
    usual, wide = score(o, names(2)).metrics, score(o, names(2), level=0.99).metrics
    for name in usual:
        assert wide[name].high - wide[name].low > usual[name].high - usual[name].low, name


def test_broken_logits_leave_no_nan_in_the_record() -> None:
    o = make(0, 40, 2)
    logits, losses = o.logits.copy(), o.losses.copy()
    logits[3], losses[3] = np.nan, np.nan
    record = score(Outputs(o.rows, o.labels, logits, losses), names(2)).to_json()
    assert record["metrics"]["loss"]["value"] is None
    assert record["metrics"]["ece"]["value"] is None
    json.dumps(record, allow_nan=False)


def test_resamples_are_counted_and_not_gone_through_row_by_row() -> None:
    """Six times the rows ask for no more of Python: what grows is inside NumPy. Calls of functions
    are what is counted, which no load changes."""
    small, large = make(0, 500, 77), make(0, 3000, 77)
    few = _calls(lambda: score(small, names(77)))
    assert _calls(lambda: score(large, names(77))) < 1.1 * few


def _calls(act: Callable[[], object]) -> int:
    """How many functions it enters, Python's and those in C."""
    entered = [0]

    def count(frame: object, event: str, value: object) -> None:
        entered[0] += event in ("call", "c_call")

    act()
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return entered[0]


@pytest.mark.slow
def test_rare_classes_keep_their_coverage() -> None:
    """A law with a class of 2 %: the interval of macro-F1 holds the truth in at least 91 % of 300
    samples of 100 rows; the full figures are in the benchmark."""
    rng, classes = np.random.default_rng(0), 3
    law = np.array([0.40, 0.07, 0.01, 0.06, 0.42, 0.02, 0.003, 0.004, 0.013])
    cells, covered, runs = law.reshape(3, 3), 0, 300
    truth = (2 * np.diag(cells) / (cells.sum(0) + cells.sum(1))).mean()
    for seed in range(runs):
        drawn = rng.choice(9, 100, p=law)
        logits = 5 * np.eye(classes, dtype=np.float32)[drawn % 3]
        o = Outputs(np.arange(100), drawn // 3, logits, np.ones(100))
        estimate = score(o, names(3), seed=seed, resamples=400).metrics["f1_macro"]
        covered += estimate.low <= truth <= estimate.high
    assert covered / runs >= 0.91
