"""oneDNN's linear layer is PyTorch's, up to rounding, in value and in gradient."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from holdfast.models.compute.processor import OneDnnLinear, is_available, measure_gain, use_onednn

pytestmark = pytest.mark.skipif(not is_available(), reason="this PyTorch has no oneDNN")


def pair(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias)
    fast = nn.Linear(24, 40, bias=bias)
    fast.load_state_dict(plain.state_dict())
    assert use_onednn(fast) == 1
    return plain, fast


@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (2, 3, 4, 24), (24,)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_pytorch(shape: tuple[int, ...], bias: bool) -> None:
    plain, fast = pair(bias)
    x = torch.randn(shape, requires_grad=True)
    twin = x.detach().clone().requires_grad_(True)
    weight = torch.randn(*shape[:-1], 40)
    (plain(x) * weight).sum().backward()
    (fast(twin) * weight).sum().backward()
    torch.testing.assert_close(fast(twin), plain(x))
    torch.testing.assert_close(twin.grad, x.grad)
    for one, two in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """In float64 the parent computes; here the backward formula itself is held to the quotient."""
    _, fast = pair()
    x = torch.randn(4, 24)
    direction = torch.randn_like(fast.weight)
    fast(x).pow(2).sum().backward()
    slope = float((fast.weight.grad * direction).sum())
    with torch.no_grad():
        start, step = fast.weight.clone(), 1e-3
        values = []
        for sign in (1, -1):
            fast.weight.copy_(start + sign * step * direction)
            values.append(float(fast(x).double().pow(2).sum()))
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_pytorch(dtype: torch.dtype) -> None:
    plain, fast = pair()
    x = torch.randn(3, 24, dtype=dtype)
    torch.testing.assert_close(fast.to(dtype)(x), plain.to(dtype)(x), rtol=0, atol=0)


def test_under_autocast_it_is_its_parent() -> None:
    plain, fast = pair()
    x = torch.randn(3, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fast(x), plain(x))


def test_an_empty_batch_stays_empty() -> None:
    _, fast = pair()
    assert fast(torch.zeros(0, 24)).shape == (0, 40)


def test_subclasses_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    network = nn.Sequential(Own(4, 4), nn.Linear(4, 4))
    assert use_onednn(network) == 1
    assert type(network[0]) is Own
    assert type(network[1]) is OneDnnLinear


def test_a_changed_layer_is_pickled_and_keeps_its_names() -> None:
    plain, fast = pair()
    assert pickle.loads(pickle.dumps(fast)).state_dict().keys() == plain.state_dict().keys()


def test_the_gain_is_a_positive_number() -> None:
    assert measure_gain() > 0
