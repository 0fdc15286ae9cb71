"""The contrastive loss against double loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.updates import ForwardPass
from holdfast.methods.contrast import ContrastTerm, class_batch, contrast
from holdfast.training.task import ClassifierOutput


def brute_force(features: np.ndarray, labels: np.ndarray, temperature: float) -> list[float]:
    """Equation 2 of 2004.11362, anchor by anchor, pair by pair."""
    unit = [row / math.sqrt(sum(x * x for x in row)) for row in features]
    losses = []
    for i, anchor in enumerate(unit):
        others = [a for a in range(len(unit)) if a != i]
        total = sum(math.exp(float(anchor @ unit[a]) / temperature) for a in others)
        positives = [p for p in others if labels[p] == labels[i]]
        terms = [
            math.log(math.exp(float(anchor @ unit[p]) / temperature) / total) for p in positives
        ]
        losses.append(-sum(terms) / len(terms) if terms else 0.0)
    return losses


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 2.0])
@pytest.mark.parametrize(
    "labels",
    [[0, 0, 1, 1, 0, 1], [0, 1, 2, 0, 1, 2], [0, 0, 0, 0, 0, 1], [0, 1, 2, 3, 4, 5], [0] * 6],
)
def test_it_is_the_double_loop(temperature: float, labels: list[int]) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 5)) * rng.uniform(0.1, 9, (6, 1))
    told = contrast(torch.tensor(features), torch.tensor(labels), temperature)
    expected = brute_force(features, np.array(labels), temperature)
    assert told.tolist() == pytest.approx(expected, rel=2e-5, abs=1e-6)


def test_its_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(5, 3)), np.array([0, 0, 1, 1, 0])
    leaf = torch.tensor(features, dtype=torch.float32, requires_grad=True)
    contrast(leaf, torch.tensor(labels), 0.5).mean().backward()
    assert leaf.grad is not None
    for i, j in [(0, 0), (2, 1), (4, 2)]:
        up, down = features.copy(), features.copy()
        up[i, j] += 1e-5
        down[i, j] -= 1e-5
        slope = np.mean(brute_force(up, labels, 0.5)) - np.mean(brute_force(down, labels, 0.5))
        assert float(leaf.grad[i, j]) == pytest.approx(slope / 2e-5, abs=1e-5)


def test_length_does_not_matter_and_order_only_permutes() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 4, generator=generator)
    labels = torch.tensor([0, 1] * 4)
    told = contrast(features, labels)
    assert torch.allclose(told, contrast(features * 7, labels), atol=1e-6)
    order = torch.randperm(8, generator=generator)
    assert torch.allclose(told[order], contrast(features[order], labels[order]), atol=1e-6)


def test_classes_apart_cost_less_than_classes_mixed() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])
    assert contrast(apart, labels).mean() < contrast(apart[[0, 2, 1, 3]], labels).mean()


def test_identical_texts_have_a_finite_loss_and_gradient() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    losses = contrast(features, torch.tensor([0, 0, 1, 1]), 0.05)
    assert losses.tolist() == pytest.approx([math.log(3)] * 4, rel=1e-5)
    losses.sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_the_term_replaces_the_losses() -> None:
    features, labels = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    output = ClassifierOutput(torch.zeros(4, 2), features)
    passed = ForwardPass(np.arange(4), {"labels": labels}, output)
    told = ContrastTerm(0.3)(passed, torch.full((4,), 99.0))
    assert torch.equal(told, contrast(features, labels, 0.3))


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=200),
    st.integers(4, 40),
    st.integers(2, 8),
    st.integers(0, 50),
)
def test_a_class_batch_has_distinct_rows_of_chosen_classes(labels, batch, most, step) -> None:
    labels = np.array(labels)
    rows = class_batch(labels, batch, most, 0, step)
    assert len(set(rows.tolist())) == len(rows) <= batch
    classes = set(labels[rows].tolist())
    assert len(classes) <= most
    if len(set(labels.tolist())) > 1:
        assert len(classes) >= 2
    pool = np.isin(labels, list(classes)).sum()
    assert len(rows) == min(batch, pool)
    assert class_batch(labels, batch, most, 0, step).tolist() == rows.tolist()


def test_a_class_batch_is_balanced_where_it_can_be() -> None:
    labels = np.array([0] * 500 + [1] * 500 + [2] * 500)
    counts = np.bincount(labels[class_batch(labels, 30, 8, 0, 3)])
    assert counts.tolist() == [10, 10, 10]


def test_every_row_comes_up_over_the_steps() -> None:
    labels = np.arange(60) % 3
    seen = {int(row) for step in range(40) for row in class_batch(labels, 16, 8, 0, step)}
    assert seen == set(range(60))
