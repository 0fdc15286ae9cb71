"""Each method against another way to compute it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from torch import nn

from holdfast.episodes.methods import Anil, Embedding, Maml, Prototypes, Reptile
from holdfast.episodes.methods.anil import fitted_head
from holdfast.episodes.methods.base import Step
from holdfast.episodes.methods.embedding import STRENGTH, read_out, unit_length
from holdfast.episodes.methods.inner import at_prototypes, descend
from holdfast.episodes.methods.prototypes import distances
from holdfast.episodes.methods.reptile import OUTER
from holdfast.episodes.reader import DISTANCE, Reader, scaled, spread
from holdfast.episodes.scores import score, vectors_for
from holdfast.episodes.tasks import Pool, Shape

SHAPE = Shape(3, 2, 4)
Small = Callable[..., tuple[Reader, Pool]]


def step_of(reader: Reader, pool: Pool, optimizer: Any, share: float = 1.0) -> Step:
    return Step(reader, pool, SHAPE, 0, 0, share, optimizer)


class Taken:
    """An optimizer that keeps the gradients that it is handed."""

    def __init__(self, reader: Reader) -> None:
        self.weights, self.found = reader.learns, []

    def step(self) -> None:
        self.found = [w.grad.clone() for w in self.weights if w.grad is not None]


def test_distances_are_those_to_the_means() -> None:
    torch.manual_seed(0)
    support, query = torch.randn(4, 3, 7), torch.randn(9, 7)
    wanted = torch.cdist(query, support.mean(dim=1)) ** 2
    assert torch.allclose(distances(support, query), wanted, atol=1e-4)


def test_a_row_is_of_the_nearest_prototype_as_scikit_learn_has_it(small: Small) -> None:
    reader, pool = small()
    for index in range(5):
        one = pool.draw(SHAPE, 0, "test", index)
        logits = Prototypes().answer(reader, one, vectors_for(reader, [one]))
        plain = NearestCentroid().fit(reader.vectors(one.support.ravel()), one.support_labels)
        assert np.array_equal(
            logits.argmax(axis=1), plain.predict(reader.vectors(one.query.ravel()))
        )


def test_prototypes_learn_from_the_query_rows_loss(small: Small) -> None:
    reader, pool = small()
    taken, one = Taken(reader), pool.draw(SHAPE, 0, "train", 0)
    loss = Prototypes().update(step_of(reader, pool, taken))
    other = copy.deepcopy(reader.network)
    other.zero_grad()
    x = reader.examples.x
    means = other.features(x[one.support.ravel()]).reshape(3, 2, -1).mean(dim=1)
    gaps = torch.cdist(other.features(x[one.query.ravel()]), means) ** 2
    wanted = nn.functional.nll_loss(
        torch.log_softmax(-0.7 * gaps, dim=1), torch.arange(3).repeat_interleave(4)
    )
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    for found, weight in zip(taken.found, other.body.parameters(), strict=True):
        assert torch.allclose(found, weight.grad, atol=1e-5)


def test_the_head_of_anil_is_that_of_a_plain_optimizer() -> None:
    torch.manual_seed(1)
    support, labels = torch.randn(10, 6), torch.arange(5).repeat(2)
    layer = nn.Linear(6, 5)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    plain = torch.optim.SGD(layer.parameters(), lr=0.3)
    for _ in range(4):
        plain.zero_grad()
        nn.functional.cross_entropy(layer(support), labels).backward()
        plain.step()
    weight, bias = fitted_head(support, labels, 5, 4, 0.3)
    assert torch.allclose(weight, layer.weight, atol=1e-6)
    assert torch.allclose(bias, layer.bias, atol=1e-6)


def test_the_gradient_through_anils_head_is_exact_of_the_second_order() -> None:
    torch.manual_seed(2)
    query, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])

    def loss(support: torch.Tensor) -> torch.Tensor:
        weight, bias = fitted_head(support, torch.tensor([0, 1, 0, 1]), 2, 3, 0.5)
        return nn.functional.cross_entropy(query @ weight.T + bias, labels)

    start = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (start,))


def test_anil_moves_the_network_by_that_gradient_and_leaves_it_in_answers(small: Small) -> None:
    reader, pool = small()
    taken, one = Taken(reader), pool.draw(SHAPE, 0, "train", 0)
    Anil(3, 0.4).update(step_of(reader, pool, taken))
    rows, h = reader.examples.x, 1e-3
    weight = reader.network.body[0].weight

    def query_loss() -> float:
        with torch.no_grad():
            s = 0.7**0.5 * reader.features(one.support)
            q = 0.7**0.5 * reader.features(one.query)
            w, b = fitted_head(s, torch.as_tensor(one.support_labels), 3, 3, 0.4)
            return float(
                nn.functional.cross_entropy(q @ w.T + b, torch.as_tensor(one.query_labels))
            )

    with torch.no_grad():
        weight[2, 1] += h
        up = query_loss()
        weight[2, 1] -= 2 * h
        down = query_loss()
        weight[2, 1] += h
    assert float(taken.found[0][2, 1]) == pytest.approx((up - down) / (2 * h), abs=2e-3)
    assert len(rows) == 96


def test_a_head_at_prototypes_answers_as_the_prototypes_do() -> None:
    torch.manual_seed(3)
    support, query = torch.randn(6, 4), torch.randn(8, 4)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    head = at_prototypes(support, labels, 3, 0.9)
    wanted = torch.log_softmax(-0.9 * distances(support.view(3, 2, 4), query), dim=1)
    assert torch.allclose(torch.log_softmax(head(query), dim=1), wanted, atol=1e-5)


def by_torch(reader: Reader, batches: Any, ways: int, rate: float) -> tuple[Any, nn.Linear]:
    """The inner loop with torch's own optimizer and clipping on a copy; the copy and its head."""
    network, unit = copy.deepcopy(reader.network), reader.scale**0.5
    x, head = reader.examples.x, nn.Linear(5, ways)
    rows, labels = batches[0]
    with torch.no_grad():
        start = network.features(x[rows]) * unit
        for one in range(ways):
            mean = start[torch.as_tensor(labels) == one].mean(dim=0)
            head.weight[one] = 2 * mean
            head.bias[one] = -(mean @ mean)
    weights = [*network.body.parameters(), *head.parameters()]
    plain = torch.optim.SGD(weights, lr=rate)
    for rows, labels in batches:
        plain.zero_grad()
        logits = head(unit * network.features(x[rows]))
        nn.functional.cross_entropy(logits, torch.as_tensor(labels)).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        plain.step()
    return network, head


def test_the_inner_loop_is_plain_descent_on_body_and_head(small: Small) -> None:
    reader, pool = small()
    one = pool.draw(SHAPE, 0, "train", 0)
    batches = [(one.support.ravel(), one.support_labels)] * 3
    network, layer = by_torch(reader, batches, 3, 0.5)
    head, _ = descend(reader, batches, 3, 0.5)
    for found, wanted in zip(reader.learns, network.body.parameters(), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(head.weight, layer.weight, atol=1e-5)
    assert torch.allclose(head.bias, layer.bias, atol=1e-5)


def test_an_inner_loop_computes_as_in_evaluation_whatever_the_mode_before(small: Small) -> None:
    moved = []
    for mode in (True, False):
        reader, pool = small(norm=True)
        one = pool.draw(SHAPE, 0, "train", 0)
        reader.network.train(mode)
        before = reader.network.body[1].running_mean.clone()
        descend(reader, [(one.support.ravel(), one.support_labels)] * 2, 3, 0.5)
        assert torch.equal(reader.network.body[1].running_mean, before)
        moved.append([w.detach().clone() for w in reader.learns])
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True))


def test_maml_applies_the_gradient_at_the_adapted_weights_to_the_start(small: Small) -> None:
    reader, pool = small()
    taken, one = Taken(reader), pool.draw(SHAPE, 0, "train", 0)
    before = [w.detach().clone() for w in reader.learns]
    batches = [(one.support.ravel(), one.support_labels)] * 2
    network, head = by_torch(reader, batches, 3, 0.3)
    Maml(2, 0.3).update(step_of(reader, pool, taken))
    for weight, was in zip(reader.learns, before, strict=True):
        assert torch.equal(weight, was)
    network.zero_grad()
    logits = head(0.7**0.5 * network.features(reader.examples.x[one.query.ravel()]))
    nn.functional.cross_entropy(logits, torch.as_tensor(one.query_labels)).backward()
    for found, weight in zip(taken.found, network.body.parameters(), strict=True):
        assert torch.allclose(found, weight.grad, atol=1e-5)


def test_reptile_goes_a_share_of_the_way_to_where_the_task_led(small: Small) -> None:
    reader, pool = small()
    one = pool.draw(SHAPE, 0, "train", 0)
    rows = np.concatenate([one.support, one.query], axis=1)
    # Six rows a class over three steps: two of each class in each.
    batches = [(rows[:, i : i + 2].ravel(), np.repeat([0, 1, 2], 2)) for i in (0, 2, 4)]
    network, _ = by_torch(reader, batches, 3, 0.3)
    before = [w.detach().clone() for w in reader.learns]
    Reptile(3, 0.3).update(step_of(reader, pool, None, share=0.4))
    for weight, start, end in zip(reader.learns, before, network.body.parameters(), strict=True):
        assert torch.allclose(weight, start + OUTER * 0.4 * (end - start), atol=1e-5)
        assert not torch.equal(weight, start)


@pytest.mark.parametrize("method", [Maml(2, 0.3), Reptile(2, 0.3), Anil(2, 0.3), Prototypes()])
def test_meeting_a_task_leaves_everything_as_it_was(method: Any, small: Small) -> None:
    reader, pool = small(norm=True)
    before = {k: v.clone() for k, v in reader.network.state_dict().items()}
    drawn = pool.episodes(SHAPE, 3, 0, "test")
    first, again = score(method, reader, drawn), score(method, reader, drawn)
    assert np.array_equal(first.accuracy, again.accuracy)
    after = reader.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_batch_norms_follow_the_rows_that_an_inner_loop_hides_from_them(small: Small) -> None:
    for method in (Maml(1, 0.1), Reptile(1, 0.1)):
        reader, pool = small(norm=True)
        norm = reader.network.body[1]
        was = norm.running_mean.clone()
        method.update(step_of(reader, pool, Taken(reader)))
        assert not torch.equal(was, norm.running_mean)
        assert not reader.network.training


def test_the_baseline_learns_a_row_from_the_classes_of_its_own_task(small: Small) -> None:
    reader, pool = small()
    method, taken = Embedding(pool, 5), Taken(reader)
    assert method.head is not None
    torch.manual_seed(5)
    nn.init.normal_(method.head.weight)
    # 18 rows of 96, drawn as the method draws them.
    from holdfast.core.seeds import generator

    chosen = generator(0, "batch", 0).choice(96, 18, replace=False)
    with torch.no_grad():
        logits = method.head(0.7**0.5 * reader.features(chosen))
    losses = []
    for row, line in zip(chosen.tolist(), logits, strict=True):
        first = 4 * (row // 48)
        own = line[first : first + 4]
        losses.append(nn.functional.cross_entropy(own[None], torch.tensor([row // 12 - first])))
    found = method.update(step_of(reader, pool, taken))
    assert found == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_a_refitted_head_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    support, query = rng.standard_normal((15, 6)), rng.standard_normal((30, 6))
    labels = np.repeat(np.arange(5), 3)
    plain = LogisticRegression(C=STRENGTH, max_iter=1000, tol=1e-8)
    plain.fit(unit_length(support), labels)
    wanted = plain.predict_log_proba(unit_length(query))
    logits = read_out("logistic", support, labels, query)
    logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    # Ours ends where the gradient is small, its own nearer to the minimum.
    assert np.allclose(logits, wanted, atol=0.06)
    nearest = NearestCentroid().fit(unit_length(support), labels).predict(unit_length(query))
    assert np.array_equal(read_out("centroid", support, labels, query).argmax(axis=1), nearest)


def test_distances_begin_at_one_size_whatever_the_features(small: Small) -> None:
    rng = np.random.default_rng(1)
    vectors, labels = rng.standard_normal((40, 7)), np.repeat(np.arange(4), 10)
    found = spread(vectors, labels)
    assert spread(10 * vectors, labels) == pytest.approx(found / 100)
    means = np.stack([vectors[labels == c].mean(axis=0) for c in range(4)])
    gaps = [
        ((vectors[i] - means[c]) ** 2).sum() for i in range(40) for c in range(4) if c != labels[i]
    ]
    assert found * np.mean(gaps) == pytest.approx(DISTANCE)
    reader, pool = small(norm=True)
    before = {k: v.clone() for k, v in reader.network.state_dict().items()}
    rows = np.concatenate(pool.tasks[0].rows)
    made = scaled(reader, rows, np.repeat(np.arange(4), 12))
    assert made.scale != reader.scale
    after = reader.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
