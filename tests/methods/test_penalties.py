"""Penalties against the solutions of scikit-learn, the steps of PyTorch and closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from sklearn.linear_model import Lasso
from torch import nn

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.methods.penalties import (
    L1,
    Proximal,
    SquaredWeights,
    StartPenalty,
    penalized_weights,
    zero_weights_decision,
)
from holdfast.methods.registry import METHODS, RunContext, complete_settings, parts_of
from holdfast.training.journal import Journal


class Small(nn.Module):
    """A body, a norm and a head without a backbone's troubles."""

    new_head = True

    def __init__(self, features: int = 6, outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Linear(features, features)
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, outputs, bias=False, dtype=torch.float64)


class Noted(Journal):
    """A journal whose notes lie in a list."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__(None)
        self.notes = notes

    def note(self, step: int, what: str, because: str, **more: object) -> None:
        self.notes.append((step, what, because, more))


class Told:
    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.journal = Noted(self.notes)


def run_of(network: Any, parameters: list[Any], optimizer: Any, **settings: Any) -> Any:
    made = optimizer([{"params": parameters}], **settings)
    return SimpleNamespace(network=network, optimizer=made, job=Told(), step=0)


def regression(rows: int = 60, features: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, features))
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * rng.normal(size=rows)
    return x, x @ np.array([1.5, 0.5, -2.0, 0.0, 0.0, 0.05]) + 0.3 * rng.normal(size=rows)


def descended(listener: Proximal, x: np.ndarray, y: np.ndarray, steps: int = 4000) -> np.ndarray:
    """Where full steps of SGD on ½ · mean squared error end, the listener's step after each."""
    network = Small(x.shape[1])
    head = network.head.weight
    run = run_of(network, [head], torch.optim.SGD, lr=0.1)
    inputs, target = torch.as_tensor(x), torch.as_tensor(y)
    listener.run_start(run)
    for _ in range(steps):
        head.grad = None
        (0.5 * ((network.head(inputs)[:, 0] - target) ** 2).mean()).backward()
        run.optimizer.step()
        listener.step_done(run)
    return head.detach().numpy()[0]


@pytest.mark.parametrize("strength", [0.05, 0.3])
def test_l1_after_sgd_ends_at_the_lasso_of_scikit_learn(strength: float) -> None:
    x, y = regression()
    theirs = Lasso(alpha=strength, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(x, y).coef_
    (listener,) = parts_of({"l1": {"strength": strength, "place": "head"}}).listeners()
    ours = descended(listener, x, y)
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
    assert (ours == 0).tolist() == (theirs == 0).tolist()
    assert (ours == 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.2, 0.5, 1.0])
def test_the_elastic_net_after_sgd_ends_at_that_of_scikit_learn(ratio: float) -> None:
    x, y = regression()
    theirs = SklearnElasticNet(
        alpha=0.4, l1_ratio=ratio, fit_intercept=False, tol=1e-10, max_iter=100_000
    )
    asked = {"strength": 0.4, "ratio": ratio, "place": "head"}
    (listener,) = parts_of({"elastic_net": asked}).listeners()
    ours = descended(listener, x, y)
    assert ours.tolist() == pytest.approx(theirs.fit(x, y).coef_.tolist(), abs=1e-6)


def stepped(make: Any, listener: Any = None, steps: int = 30, **settings: Any) -> torch.Tensor:
    """The head's weights after some steps of an optimizer on a regression."""
    torch.manual_seed(0)
    network = Small(outputs=2)
    x, y = (torch.as_tensor(one) for one in regression())
    run = run_of(network, [network.head.weight], make, lr=0.05, **settings)
    if listener is not None:
        listener.run_start(run)
    for _ in range(steps):
        run.optimizer.zero_grad()
        ((network.head(x) - y[:, None]) ** 2).mean().backward()
        if listener is not None:
            listener.backward_done(run)
        run.optimizer.step()
    return network.head.weight.detach()


def test_l2_as_a_term_is_the_coupled_decay_of_adam_and_not_the_decoupled() -> None:
    ours = stepped(torch.optim.Adam, SquaredWeights(0.3, "head"))
    coupled = stepped(torch.optim.Adam, weight_decay=0.3)
    decoupled = stepped(torch.optim.AdamW, weight_decay=0.3)
    assert torch.allclose(ours, coupled, atol=1e-12)
    assert not torch.allclose(ours, decoupled, atol=1e-3)


def test_with_sgd_the_two_decays_are_the_same() -> None:
    ours = stepped(torch.optim.SGD, SquaredWeights(0.3, "head"))
    assert torch.allclose(ours, stepped(torch.optim.SGD, weight_decay=0.3), atol=1e-12)
    assert not torch.allclose(ours, stepped(torch.optim.SGD), atol=1e-3)


def test_l2_sp_ends_between_the_start_and_the_optimum_and_a_new_head_at_zero() -> None:
    """Of ½‖w − a‖² the penalised optimum is (a + αw⁰) ÷ (1 + α)."""
    network = Small()
    body, head = network.body.weight, network.head.weight
    start, aim = body.detach().clone(), torch.randn_like(body)
    run = run_of(network, [body, head], torch.optim.SGD, lr=0.2)
    run.initial_tensors = {"body.weight": start.clone(), "head.weight": head.detach().clone()}
    listener = StartPenalty(0.5, 2.0)
    listener.run_start(run)
    for _ in range(200):
        run.optimizer.zero_grad()
        (0.5 * ((body - aim) ** 2).sum() + 0.5 * ((head - 1) ** 2).sum()).backward()
        listener.backward_done(run)
        run.optimizer.step()
    assert torch.allclose(body, (aim + 0.5 * start) / 1.5, atol=1e-5)
    assert torch.allclose(head, torch.full_like(head, 1 / 3), atol=1e-5)


def test_a_pretrained_head_is_pulled_to_its_start() -> None:
    network = Small()
    network.new_head = False
    head = network.head.weight
    start = head.detach().clone() + 1
    run = run_of(network, [head], torch.optim.SGD, lr=0.2)
    run.initial_tensors = {"head.weight": start}
    listener = StartPenalty(1.0, 5.0)
    listener.run_start(run)
    head.grad = torch.zeros_like(head)
    listener.backward_done(run)
    assert torch.allclose(head.grad, head.detach() - start)


def test_what_does_not_learn_or_is_not_stepped_stays_as_it_is() -> None:
    network = Small()
    before = network.body.weight.detach().clone()
    run = run_of(network, [network.body.weight, network.head.weight], torch.optim.SGD, lr=1.0)
    network.head.weight.grad = torch.zeros_like(network.head.weight)
    listener = Proximal("l1", "all", 10.0)
    listener.run_start(run)
    listener.step_done(run)
    assert torch.equal(network.body.weight, before)
    assert (network.head.weight == 0).all()
    assert penalized_weights(network, "all").keys() == {"body.weight", "head.weight"}
    assert penalized_weights(network, "head").keys() == {"head.weight"}


def test_a_proximal_step_takes_the_present_rate_and_not_the_one_at_the_peak() -> None:
    network = Small()
    head = network.head.weight
    before = head.detach().clone()
    run = run_of(network, [head], torch.optim.SGD, lr=0.01)
    run.optimizer.param_groups[0]["base_lr"] = 10.0
    head.grad = torch.zeros_like(head)
    listener = Proximal("l1", "head", 1.0)
    listener.run_start(run)
    listener.step_done(run)
    assert torch.allclose(head, torch.nn.functional.softshrink(before, 0.01))


@pytest.mark.parametrize(
    ("asked", "body", "head"),
    [
        ({"l2": {"strength": 0.5, "place": "all"}}, 0.5, 0.5),
        ({"l2": {"strength": 0.5, "place": "head"}}, None, 0.5),
        ({"l2_sp": {"strength": 0.5, "head": 2.0}}, 0.0, 2.0),
    ],
)
def test_what_a_recipe_asks_for_is_what_is_pulled(
    asked: Any, body: float | None, head: float
) -> None:
    """By how many times its weight the gradient of each grew, at the start."""
    network = Small()
    weights = {"body.weight": network.body.weight, "head.weight": network.head.weight}
    run = run_of(network, list(weights.values()), torch.optim.SGD, lr=0.1)
    run.initial_tensors = {name: weight.detach().clone() for name, weight in weights.items()}
    (listener,) = parts_of(asked).listeners()
    listener.run_start(run)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    listener.backward_done(run)
    for weight, times in zip(weights.values(), (body, head), strict=True):
        assert torch.allclose(weight.grad, (times or 0.0) * weight.detach())


def test_what_became_zero_is_counted() -> None:
    network = Small(6, 2)
    with torch.no_grad():
        network.head.weight.fill_(1.0)
        network.head.weight[:, 2] = 0
        network.head.weight[0, 4] = 0
    made = zero_weights_decision("l1", network, penalized_weights(network, "head"), 7)
    assert made.chosen == "25.0 % of the weights are zero"
    assert "3 of 12 weights are exactly zero" in made.because
    assert "the head uses 5 of 6 features, 17 % of them have no weight" in made.because


def test_a_penalty_on_nothing_is_refused() -> None:
    network = Small()
    network.head.requires_grad_(False)
    loaded: Any = SimpleNamespace(network=network)
    with pytest.raises(RecipeError, match="none of which is trainable") as caught:
        parts_of({"l1": {"strength": 1.0, "place": "head"}}).prepares(loaded)
    assert "place=all" in caught.value.remedy
    with record_decisions() as told:
        parts_of({"l1": {"strength": 1.0, "place": "all"}}).prepares(loaded)
    (made,) = told
    assert isinstance(made, Decision)
    assert made.chosen == "36 weights"


def test_the_settings_are_the_ones_that_the_listener_gets() -> None:
    known = RunContext(train_rows=90, learning_rate=1e-3)
    settled = complete_settings("l1", {"strength": 3}, known)
    assert METHODS["l1"].settings(**settled) == L1(3, "head")
