"""Several labels and numbers: losses, metrics and linear probes against torch and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr, ttest_1samp
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression, Ridge

from holdfast.metrics.comparison import compare_losses
from holdfast.models.probes.probe import fit_labels, fit_ridge, frequency_logits
from holdfast.tasks.classes.encoding import EncodedTexts
from holdfast.tasks.labels.answers import SetOutputs, score_sets
from holdfast.tasks.labels.losses import LabelSets, set_losses
from holdfast.tasks.number.answers import NumberOutputs, _pearson, _ranked, score_numbers
from holdfast.tasks.number.losses import Numbers, Scale, number_losses, number_metrics
from holdfast.training.task import ClassifierOutput

NAMES = ("a", "b", "c", "d")


def drawn(n: int = 60, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 4)) < [0.5, 0.3, 0.2, 0.0]
    logits = rng.normal(size=(n, 4)) + 2 * truth - [1, 1, 1, 9]
    return truth, logits.astype(np.float32)


def examples(labels: Any) -> EncodedTexts:
    n = len(labels)
    return EncodedTexts(
        np.zeros(n, int), None, np.arange(n + 1), np.arange(n), labels, np.zeros(n, bool)
    )


def test_the_loss_of_a_set_is_torchs_mean_binary_cross_entropy_and_so_is_its_gradient() -> None:
    truth, logits = drawn()
    ours = torch.tensor(logits, requires_grad=True)
    theirs = torch.tensor(logits, requires_grad=True)
    target = torch.tensor(truth, dtype=torch.float32)
    batch = {"labels": target}
    losses = LabelSets(0, NAMES).losses(ClassifierOutput(ours, ours), batch)
    losses.mean().backward()
    torch.nn.BCEWithLogitsLoss()(theirs, target).backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-8)
    assert np.allclose(set_losses(logits, truth.astype(float)), losses.detach(), atol=1e-6)


@pytest.mark.parametrize("huber", [None, 0.7])
def test_the_loss_of_a_number_is_torchs(huber: float | None) -> None:
    rng = np.random.default_rng(1)
    answers, truth = rng.normal(size=(30, 1)) * 2, rng.normal(size=30)
    output = torch.tensor(answers)
    task = Numbers(0, ("x",), huber=huber)
    losses = task.losses(ClassifierOutput(output, output), {"labels": torch.tensor(truth)})
    criterion = torch.nn.MSELoss() if huber is None else torch.nn.HuberLoss(delta=huber)
    expected = float(criterion(output[:, 0], torch.tensor(truth)))
    assert float(losses.mean()) == pytest.approx(expected, rel=1e-6)
    assert number_losses(answers[:, 0] - truth, huber).mean() == pytest.approx(expected, rel=1e-9)


def test_sets_are_scored_as_scikit_learn_does() -> None:
    truth, logits = drawn()
    answers = logits > 0
    made = SetOutputs(np.arange(60), truth, logits, set_losses(logits, truth.astype(float)))
    found = score_sets(made, NAMES, resamples=200)
    expected = {
        "f1_micro": sk.f1_score(truth, answers, average="micro"),
        "f1_macro": sk.f1_score(truth, answers, average="macro", zero_division=np.nan),
        "exact_match": sk.accuracy_score(truth, answers),
        "precision_micro": sk.precision_score(truth, answers, average="micro"),
        "recall_micro": sk.recall_score(truth, answers, average="micro"),
    }
    for name, value in expected.items():
        estimate = found.metrics[name]
        assert estimate.value == pytest.approx(value)
        assert estimate.low < value < estimate.high
    f1 = sk.f1_score(truth, answers, average=None, zero_division=np.nan)
    each = found.extra["per_class"]
    assert [each[name]["f1"].value for name in "abc"] == pytest.approx(list(f1[:3]))
    assert each["d"]["f1"].value is None
    look = LabelSets(0, NAMES).measure(made.losses, logits, examples(truth * 1.0), np.arange(60))
    assert look.metrics == pytest.approx({name: expected[name] for name in look.metrics})


def test_numbers_are_scored_as_scikit_learn_and_scipy_do() -> None:
    rng = np.random.default_rng(2)
    truth = np.round(rng.normal(size=80) * 3 + 1000, 0)
    answers = np.round(truth + rng.normal(size=80) * 2, 0)
    made = NumberOutputs(np.arange(80), truth, answers, (answers - truth) ** 2)
    found = score_numbers(made, resamples=200)
    expected = {
        "mae": sk.mean_absolute_error(truth, answers),
        "rmse": sk.root_mean_squared_error(truth, answers),
        "r2": sk.r2_score(truth, answers),
        "spearman": spearmanr(truth, answers).statistic,
    }
    for name, value in expected.items():
        estimate = found.metrics[name]
        assert estimate.value == pytest.approx(value)
        assert estimate.low < value < estimate.high
    assert number_metrics(truth, answers) == pytest.approx(expected)


def test_weighted_rank_correlation_is_that_of_the_repeated_rows() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.integers(0, 6, 30).astype(float), rng.integers(0, 6, 30).astype(float)
    weights = rng.integers(0, 4, (5, 30)).astype(float)
    ranks = [_ranked(values).under(weights) for values in (one, two)]
    found = _pearson(ranks[0], ranks[1], weights)
    for line, value in zip(weights.astype(int), found, strict=True):
        expected = spearmanr(np.repeat(one, line), np.repeat(two, line)).statistic
        assert value == pytest.approx(expected)


def test_what_is_undefined_says_why() -> None:
    flat = NumberOutputs(np.arange(5), np.arange(5.0), np.ones(5), np.ones(5))
    assert "do not vary" in str(score_numbers(flat).metrics["spearman"].why)
    none = NumberOutputs(*[np.zeros(0)] * 4)
    assert score_numbers(none).metrics["mae"].why == "there are no rows"
    empty = SetOutputs(np.zeros(0), np.zeros((0, 4), bool), np.zeros((0, 4)), np.zeros(0))
    assert score_sets(empty, NAMES).metrics["f1_micro"].value is None
    assert np.isnan(number_metrics(np.zeros(0), np.zeros(0))["mae"])


def test_ridge_is_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(90, 12)) * 3 + 5
    y = x @ rng.normal(size=12) + rng.normal(size=90) * 4
    probe = fit_ridge(x, y, seed=0)
    scale = np.sqrt(x.var(axis=0).mean())
    plain = Ridge(alpha=1 / probe.c).fit(x / scale, y)
    assert np.allclose(probe.logits(x)[:, 0], plain.predict(x / scale), atol=1e-6)


def test_the_label_probe_is_one_logistic_regression_a_label() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(120, 6))
    y = np.column_stack([x[:, 0] + rng.normal(size=120) > 0, x[:, 1] > 1, np.ones(120)]) * 1.0
    probe = fit_labels(x, y, seed=0)
    scale = np.sqrt(x.var(axis=0).mean())
    inside = (x - x.mean(axis=0)) / scale
    for label in (0, 1):
        plain = LogisticRegression(C=probe.c, tol=1e-8, max_iter=5000).fit(inside, y[:, label])
        expected = plain.decision_function(inside)
        assert np.allclose(probe.logits(x)[:, label], expected, atol=2e-2)
    assert np.allclose(probe.logits(x)[:, 2], frequency_logits(y)[2])


def test_a_scale_goes_in_and_out() -> None:
    values = np.array([3.0, 5.0, 9.5])
    scale = Scale(float(values.mean()), float(values.std()))
    assert scale.inside(values).std() == pytest.approx(1)
    assert np.allclose(scale.outside(scale.inside(values)), values)


def test_a_clear_difference_of_losses_is_called_one_and_none_is_not() -> None:
    rng = np.random.default_rng(6)
    units = NumberOutputs(*[np.zeros(200)] * 4).units
    base = rng.random(200)
    better = compare_losses(base, base + 0.1 + 0.1 * rng.random(200), units)
    same = compare_losses(base, rng.permutation(base), units)
    assert better["p_value"] < 0.01
    assert "the fine-tuned model is better" in better["because"]
    assert "no difference" in same["because"]


def test_two_rows_and_equal_differences_prove_nothing() -> None:
    rows = np.array([1.0, 1.2, 0.7, 1.9])
    for n, why in ((1, "there is one row"), (2, "there are two rows"), (4, "all differences")):
        units = NumberOutputs(*[np.zeros(n)] * 4).units
        found = compare_losses(rows[:n], rows[:n] + 0.1, units)
        assert found["p_value"] is None
        assert (found["difference"].low, found["difference"].high) == (None, None)
        assert found["difference"].value == pytest.approx(-0.1)
        assert why in found["because"]
    rise = np.array([0.1, 0.2, 0.1, 0.3])
    few = compare_losses(rows, rows + rise, NumberOutputs(*[np.zeros(4)] * 4).units)
    assert few["p_value"] == pytest.approx(ttest_1samp(rise, 0).pvalue)
    assert "(paired t-test, p = " in few["because"]
