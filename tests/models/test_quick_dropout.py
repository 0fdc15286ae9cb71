"""Dropout with masks drawn sixteen bits a place: its law, its gradient, its seeds."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from holdfast.models.compute.processor import MIN_PLACES, quick_dropout

PLACES = 400_000


@pytest.mark.parametrize("p", [0.1, 0.5, 0.003, 0.97])
def test_places_are_dropped_at_the_rate_asked_for_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    with quick_dropout():
        y = functional.dropout(torch.ones(PLACES), p)
    kept = y != 0
    assert abs(float(kept.double().mean()) - (1 - p)) < 4.5 * math.sqrt(p * (1 - p) / PLACES) + 1e-5
    (value,) = y[kept].unique().tolist()
    assert value == pytest.approx(1 / (1 - p), rel=1e-3)
    error = value * math.sqrt(p * (1 - p) / PLACES)
    assert abs(float(y.double().mean()) - 1) < 4.5 * error


def test_neighbours_are_dropped_independently_whatever_their_distance() -> None:
    """Four places share a draw of the generator; at every lag the pairs are those of chance."""
    torch.manual_seed(1)
    with quick_dropout():
        dropped = (functional.dropout(torch.ones(PLACES), 0.3) == 0).double() - 0.3
    for lag in range(1, 9):
        together = float((dropped[:-lag] * dropped[lag:]).mean())
        assert abs(together) < 4.5 * 0.3 * 0.7 / math.sqrt(PLACES), lag
    lanes = (dropped.view(-1, 4) + 0.3).mean(dim=0)
    assert (lanes - 0.3).abs().max() < 4.5 * math.sqrt(0.3 * 0.7 * 4 / PLACES)


def test_the_gradient_passes_where_a_place_was_kept() -> None:
    x = torch.randn(64, 128, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(64, 128, dtype=torch.float64)
    with quick_dropout():
        y = functional.dropout(x, 0.25)
    (y * wanted).sum().backward()
    scale = torch.where(y == 0, 0.0, 1 / 0.75)
    assert torch.allclose(y, x * scale)
    assert x.grad is not None
    assert torch.allclose(x.grad, wanted * scale)


def test_a_seed_repeats_the_mask_and_its_state_goes_on() -> None:
    x = torch.ones(MIN_PLACES + 3)
    with quick_dropout():
        torch.manual_seed(5)
        first, state = functional.dropout(x, 0.5), torch.get_rng_state()
        second = functional.dropout(x, 0.5)
        torch.set_rng_state(state)
        assert torch.equal(functional.dropout(x, 0.5), second)
        torch.manual_seed(5)
        assert torch.equal(functional.dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_modules_draw_so_and_recomputed_activations_meet_their_mask_again() -> None:
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(2)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(0.4))
    x = torch.randn(128, 64)
    gradients = []
    with quick_dropout():
        for call in (layers, lambda given: checkpoint(layers, given, use_reentrant=False)):
            torch.manual_seed(3)
            layers.zero_grad()
            call(x).square().sum().backward()
            gradients.append(layers[0].weight.grad.clone())
        assert torch.equal(layers.eval()(x), layers[0](x))
    assert torch.equal(*gradients)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_none_and_all_are_exact(p: float) -> None:
    x = torch.randn(100, 100)
    with quick_dropout():
        assert torch.equal(functional.dropout(x, p), x * (1 - p))


def test_outside_it_is_torchs_own_again_whatever_happened() -> None:
    own, seen = functional.dropout, []

    def fail() -> None:
        with quick_dropout():
            seen.append(functional.dropout)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert functional.dropout is own
    assert seen[0] is not own


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_the_kind_of_number_stays(kind: torch.dtype) -> None:
    with quick_dropout():
        y = functional.dropout(torch.ones(3, 7, 1000, dtype=kind), 0.1)
    assert (y.dtype, y.shape) == (kind, (3, 7, 1000))
    assert float(y.max()) == pytest.approx(1 / 0.9, rel=1e-2)
