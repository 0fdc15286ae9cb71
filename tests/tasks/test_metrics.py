"""Values against scikit-learn, and a user's own function."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from holdfast.core.errors import RecipeError
from holdfast.core.records import Outputs
from holdfast.metrics import METRICS, find_metric
from holdfast.metrics.classes import Ranking, confidence_bins


def outputs(labels, logits) -> Outputs:
    labels, logits = np.asarray(labels), np.asarray(logits, dtype=np.float32)
    wide = logits.astype(np.float64)
    losses = np.log(np.exp(wide).sum(1)) - wide[np.arange(len(labels)), labels]
    return Outputs(np.arange(len(labels)), labels, logits, losses)


def noisy(seed: int, n: int = 120, classes: int = 6) -> Outputs:
    rng = np.random.default_rng(seed)
    # Skewed, so that some classes are rare, unpredicted or absent.
    labels = rng.choice(
        classes,
        n,
        p=np.array([0.5, 0.3, 0.15, 0.04, 0.01, 0.0])[:classes]
        / sum([0.5, 0.3, 0.15, 0.04, 0.01, 0.0][:classes]),
    )
    return outputs(labels, rng.normal(size=(n, classes)) + np.eye(classes)[labels])


ORACLES = {
    "accuracy": lambda o: sk.accuracy_score(o.labels, o.predictions),
    "loss": lambda o: sk.log_loss(o.labels, o.probabilities, labels=np.arange(6)),
    "brier": lambda o: np.mean(((o.probabilities - np.eye(6)[o.labels]) ** 2).sum(1)),
    **{
        f"{name}_{average}": lambda o, f=function, a=average: f(
            o.labels, o.predictions, average=a, zero_division=0
        )
        for name, function in (
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
        )
        for average in ("macro", "weighted")
    },
}


@pytest.mark.parametrize("name", ORACLES)
def test_values_are_scikit_learns(name: str) -> None:
    for seed in range(8):
        o = noisy(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ORACLES[name](o)
        assert METRICS[name].compute(o, tuple("abcdef")) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ties", [False, True])
def test_rankings_are_scikit_learns_with_ties_and_weights(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(150) < 0.3, rng.normal(size=150)
    scores = np.round(scores) if ties else scores
    weights = rng.integers(0, 4, size=(3, 150)).astype(float)
    ranking = Ranking(scores, positive)
    for i, line in enumerate(weights):
        rows = np.repeat(np.arange(150), line.astype(int))
        auc, precision = ranking.roc_auc(weights)[i], ranking.average_precision(weights)[i]
        assert auc == pytest.approx(sk.roc_auc_score(positive[rows], scores[rows]))
        assert precision == pytest.approx(sk.average_precision_score(positive[rows], scores[rows]))


def test_every_metric_has_an_oracle_somewhere() -> None:
    elsewhere = {"roc_auc", "average_precision", "ece", "refined_loss"}
    assert set(METRICS) == set(ORACLES) | elsewhere


def test_ece_is_the_sum_by_hand_over_sorted_tenths() -> None:
    o = noisy(0, n=150)
    confidence = o.probabilities.max(1)
    order, total = np.argsort(confidence), 0.0
    for part in np.array_split(order, 15):
        right = o.predictions[part] == o.labels[part]
        total += abs(right.mean() - confidence[part].mean()) * len(part) / 150
    assert METRICS["ece"].compute(o, tuple("abcdef")) == pytest.approx(total)


@pytest.mark.parametrize(("n", "bins"), [(1, 1), (19, 1), (20, 2), (149, 14), (150, 15), (900, 15)])
def test_bins_hold_ten_rows_or_more(n: int, bins: int) -> None:
    made = confidence_bins(noisy(1, n=n))
    assert made.count == bins
    assert np.bincount(made.member, minlength=bins).min() >= min(n, 10)


def test_equal_confidences_share_a_bin() -> None:
    same = outputs(np.zeros(100, int), np.tile([1.0, 0.0], (100, 1)))
    made = confidence_bins(same)
    assert made.count == 1
    assert len(set(made.member)) == 1


def test_two_tied_halves_make_two_bins_at_most() -> None:
    logits = np.repeat([[1.0, 0.0], [3.0, 0.0]], 50, axis=0)
    assert confidence_bins(outputs(np.zeros(100, int), logits)).count == 2


def _file(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


COST = """
def cost(labels, predictions, probabilities):
    return float((labels != predictions).mean() * probabilities.shape[1])
"""


@pytest.mark.parametrize("suffix", [":lower", ":higher"])
def test_a_users_function_is_a_metric(tmp_path: Path, suffix: str) -> None:
    metric = find_metric(f"{_file(tmp_path, COST)}:cost{suffix}")
    assert metric.name == "cost"
    assert metric.higher_is_better == (suffix == ":higher")
    o = noisy(0)
    wrong = np.mean(o.labels != o.predictions)
    assert metric.compute(o, tuple("abcdef")) == pytest.approx(6 * wrong)


def test_the_direction_may_stand_beside_the_function(tmp_path: Path) -> None:
    path = _file(tmp_path, COST + "cost.higher_is_better = False\ncost.low = 0\n")
    metric = find_metric(f"{path}:cost")
    assert not metric.higher_is_better
    assert metric.low == 0.0


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (COST, "cost", "does not say whether higher is better"),
        (COST, "cost:upwards", "does not say whether higher is better"),
        (COST, "coast:lower", "does not define"),
        ("def cost(:\n", "cost:lower", "fails on import"),
        ("import nowhere_to_be_found\n", "cost:lower", "fails on import"),
    ],
)
def test_a_bad_function_is_refused_by_name(tmp_path, text, name, message) -> None:
    with pytest.raises(RecipeError, match=message):
        find_metric(f"{_file(tmp_path, text)}:{name}")


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        find_metric("nowhere.py:cost:lower")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="f1_macro"):
        find_metric("f1_macr")


@pytest.mark.parametrize(
    ("body", "message"), [("return 'good'", "one number"), ("return 1 / 0", "ZeroDivisionError")]
)
def test_a_function_that_fails_says_so(tmp_path: Path, body: str, message: str) -> None:
    path = _file(tmp_path, f"def cost(labels, predictions, probabilities):\n    {body}\n")
    with pytest.raises(RecipeError, match=message):
        find_metric(f"{path}:cost:lower").compute(noisy(0), tuple("abcdef"))


def test_nan_from_a_function_is_undefined(tmp_path: Path) -> None:
    path = _file(
        tmp_path, "def cost(labels, predictions, probabilities):\n    return float('nan')\n"
    )
    assert find_metric(f"{path}:cost:lower").compute(noisy(0), tuple("abcdef")) is None
