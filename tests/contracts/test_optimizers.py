"""What every registered optimizer promises, found by discovery."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from holdfast.core.errors import RecipeError
from holdfast.methods.optimizers import OPTIMIZERS, build_optimizer

ALL = list(OPTIMIZERS)


def groups(decay: float = 0.1, rate: float = 0.01) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4, generator=generator))
    bias = torch.nn.Parameter(torch.randn(4, generator=generator))
    return [
        {"params": [weight], "lr": rate, "weight_decay": decay},
        {"params": [bias], "lr": rate, "weight_decay": 0.0},
    ]


def parameters(made: list[dict[str, Any]]) -> list[torch.nn.Parameter]:
    return [parameter for group in made for parameter in group["params"]]


def step(optimizer: torch.optim.Optimizer, made: list[dict[str, Any]], number: int) -> None:
    generator = torch.Generator().manual_seed(100 + number)
    for parameter in parameters(made):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def values(made: list[dict[str, Any]]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in parameters(made)]


@pytest.mark.parametrize("name", ALL)
def test_it_comes_down_a_bowl(name: str) -> None:
    made = groups(decay=0.0, rate=0.02)
    optimizer = build_optimizer(name, made)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = sum(((p - 1.0) ** 2).sum() for p in parameters(made))
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        losses.append(float(loss.detach()))  # type: ignore[union-attr]
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("name", ALL)
def test_a_group_s_rate_is_obeyed_as_it_changes(name: str) -> None:
    made = groups()
    optimizer = build_optimizer(name, made)
    step(optimizer, made, 0)
    before = values(made)
    optimizer.param_groups[0]["lr"] = 0.0
    step(optimizer, made, 1)
    after = values(made)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("name", ALL)
def test_what_has_no_decay_is_untouched_by_a_zero_gradient(name: str) -> None:
    made = groups(decay=0.5)
    optimizer = build_optimizer(name, made)
    before = values(made)
    for parameter in parameters(made):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weight, bias = values(made)
    assert torch.equal(bias, before[1])
    assert weight.norm() < before[0].norm()
    assert not torch.equal(weight, before[0])


@pytest.mark.parametrize("name", ALL)
def test_its_state_survives_a_checkpoint_bit_for_bit(name: str, tmp_path) -> None:
    one, two = groups(), groups()
    first = build_optimizer(name, one)
    for number in range(6):
        step(first, one, number)
    second = build_optimizer(name, two)
    for number in range(3):
        step(second, two, number)
    torch.save({"w": values(two), "o": second.state_dict()}, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    three = groups()
    with torch.no_grad():
        for parameter, value in zip(parameters(three), loaded["w"], strict=True):
            parameter.copy_(value)
    third = build_optimizer(name, three)
    third.load_state_dict(loaded["o"])
    for number in range(3, 6):
        step(third, three, number)
    for a, b in zip(values(one), values(three), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_two_runs_are_the_same(name: str) -> None:
    ends = []
    for _ in range(2):
        made = groups()
        optimizer = build_optimizer(name, made)
        for number in range(4):
            step(optimizer, made, number)
        ends.append(values(made))
    for a, b in zip(*ends, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_no_gradient_means_no_move(name: str) -> None:
    made = groups()
    before = values(made)
    build_optimizer(name, made).step()
    for a, b in zip(before, values(made), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_a_parameter_with_a_later_first_gradient_moves_as_if_it_were_alone(name: str) -> None:
    """As the new layer after a phase that trains the encoder only."""
    generator = torch.Generator().manual_seed(0)
    first, later, alone = (torch.nn.Parameter(torch.ones(4)) for _ in range(3))
    settings = {"lr": 0.01, "weight_decay": 0.1}
    both = build_optimizer(name, [{"params": [first, later], **settings}])
    single = build_optimizer(name, [{"params": [alone], **settings}])
    for number in range(4):
        first.grad = torch.randn(4, generator=generator)
        if number:
            later.grad = alone.grad = torch.randn(4, generator=generator)
            single.step()
        both.step()
    assert not torch.equal(later, torch.ones(4))
    torch.testing.assert_close(later, alone)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="adamw"):
        build_optimizer("adamv", groups())


def test_the_first_adamw_step_is_bias_corrected() -> None:
    """With correction m̂ = g and v̂ = g², so the first step is rate · g ÷ (|g| + ε) after the
    decay; without it, it would be about three times as long."""
    made = groups(decay=0.1, rate=0.01)
    before = values(made)
    optimizer = build_optimizer("adamw", made)
    step(optimizer, made, 0)
    for index, (old, new) in enumerate(zip(before, values(made), strict=True)):
        gradient = parameters(made)[index].grad
        assert gradient is not None
        decayed = old * (1 - 0.01 * (0.1 if index == 0 else 0.0))
        expected = decayed - 0.01 * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(new, expected, atol=1e-7)


def by_hand(name: str, w: float, gradients: list[float], rate: float, decay: float) -> float:
    """The update rules in scalar arithmetic, from the papers."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        if "adamw" in name:
            w *= 1 - rate * decay
        else:
            g += decay * w
        if name in ("adam", "adamw", "paged_adamw8bit"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w -= rate * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        elif name == "rmsprop":
            v = 0.99 * v + 0.01 * g * g
            w -= rate * g / (math.sqrt(v) + 1e-8)
        else:
            m = g if t == 1 else 0.9 * m + g
            w -= rate * (g + 0.9 * m)
    return w


@pytest.mark.parametrize("name", ALL)
def test_five_steps_by_hand(name: str) -> None:
    gradients = [0.3, -1.2, 0.5, 0.05, 2.0]
    # bitsandbytes keeps its averages in float32, and in 8 bits from 4,096 weights on.
    kind, near = (torch.float32, 1e-6) if "8bit" in name else (torch.float64, 1e-9)
    weight = torch.nn.Parameter(torch.tensor([[0.7]], dtype=kind))
    optimizer = build_optimizer(name, [{"params": [weight], "lr": 0.02, "weight_decay": 0.1}])
    for gradient in gradients:
        weight.grad = torch.tensor([[gradient]], dtype=kind)
        optimizer.step()
    expected = by_hand(name, 0.7, gradients, 0.02, 0.1)
    assert float(weight.detach()) == pytest.approx(expected, rel=near)
