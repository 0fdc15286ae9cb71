"""The Fisher information against its closed form, and the pull towards the start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from holdfast.methods.penalties import EWC, ConsolidationPenalty, fisher

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 2


class Dropping(torch.nn.Linear):
    """Drops half of what it puts out while it learns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(x), 0.5, self.training)


class Logistic:
    """A task of logistic regression on ``X``."""

    def collate(self, examples: Any, positions: np.ndarray) -> dict[str, torch.Tensor]:
        return {"x": X[positions], "y": Y[positions]}

    def forward(self, network: torch.nn.Linear, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return network(batch["x"])

    def losses(self, output: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return cross_entropy(output, batch["y"], reduction="none")


def run_of(network: torch.nn.Linear) -> Any:
    accelerator = SimpleNamespace(device=torch.device("cpu"), autocast=contextlib.nullcontext)
    job = SimpleNamespace(task=Logistic(), general_replay=range(12), accelerator=accelerator)
    start = {name: one.detach().clone() for name, one in network.named_parameters()}
    return SimpleNamespace(
        job=job,
        network=network,
        initial_tensors=start,
        trainable_parameters=lambda: dict(network.named_parameters()),
        initial_weights=contextlib.nullcontext,
    )


def closed_form(weight: np.ndarray, bias: np.ndarray, rows: int) -> np.ndarray:
    """mean over rows of ((p − y) xᵀ)², of softmax regression."""
    x = np.column_stack([X.numpy(), np.ones(12)])[:rows].astype(np.float64)
    logits = x[:, :3] @ weight.T + bias
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[np.arange(rows), Y.numpy()[:rows]] -= 1
    return np.mean((p[:, :, None] * x[:, None, :]) ** 2, axis=0)


@pytest.mark.parametrize("rows", [5, 12, 200])
def test_the_fisher_information_is_that_of_the_formula(rows: int) -> None:
    torch.manual_seed(0)
    network = Dropping(3, 2)
    told = fisher(run_of(network), rows)
    expected = closed_form(
        network.weight.detach().numpy().astype(np.float64),
        network.bias.detach().numpy().astype(np.float64),
        min(rows, 12),
    )
    expected /= expected.mean()
    assert told["weight"].numpy() == pytest.approx(expected[:, :3], rel=1e-4)
    assert told["bias"].numpy() == pytest.approx(expected[:, 3], rel=1e-4)
    assert network.weight.grad is None
    assert network.training


def test_layers_that_do_not_learn_yet_are_measured_and_stay_still() -> None:
    """Under gradual unfreezing the first update moves the head alone."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    wanted = fisher(run_of(network), 200)
    network.weight.requires_grad_(False)
    told = fisher(run_of(network), 200)
    assert torch.equal(told["weight"], wanted["weight"])
    assert not network.weight.requires_grad
    assert network.bias.requires_grad


def test_in_a_run_that_goes_on_it_is_that_of_the_start() -> None:
    """It is worked out again after a resume, when the weights are elsewhere."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    run, listener = run_of(network), ConsolidationPenalty(EWC())

    @contextlib.contextmanager
    def at_start() -> Iterator[None]:
        held = {name: weight.data for name, weight in network.named_parameters()}
        for name, weight in network.named_parameters():
            weight.data = run.initial_tensors[name]
        yield
        for name, weight in network.named_parameters():
            weight.data = held[name]

    run.initial_weights = at_start
    wanted = fisher(run, 200)
    with torch.no_grad():
        network.weight.mul_(5).add_(1)
    assert not torch.allclose(fisher(run, 200)["weight"], wanted["weight"])
    listener.backward_done(run)
    assert torch.allclose(listener.fisher["weight"], wanted["weight"])


def test_a_weight_that_moved_is_pulled_back_by_what_it_mattered() -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    run, listener = run_of(network), ConsolidationPenalty(EWC(weight=0.5))
    network.weight.grad = torch.zeros_like(network.weight)
    listener.backward_done(run)
    assert not network.weight.grad.any()
    with torch.no_grad():
        network.weight += torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 3.0]])
    listener.backward_done(run)
    away = network.weight.detach() - run.initial_tensors["weight"]
    assert torch.allclose(network.weight.grad, 0.5 * listener.fisher["weight"] * away)
    assert network.bias.grad is None
