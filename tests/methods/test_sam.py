"""The two-pass step against closed forms and plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from holdfast.core.updates import Draw
from holdfast.methods.sam import Sam


class Bowl:
    """An update of L(w) = ½ wᵀAw, whose gradient Aw is known at every point."""

    def __init__(self, curvature: list[float], start: list[float]) -> None:
        self.a = torch.diag(torch.tensor(curvature, dtype=torch.float64))
        self.w = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.parameters = [self.w, torch.nn.Parameter(torch.zeros(2))]
        self.passes: list[tuple[torch.Tensor, bool]] = []

    def gradients(self, draw: Draw, repeat_pass: bool = False) -> float:
        self.passes.append((self.w.detach().clone(), repeat_pass))
        self.w.grad = self.a @ self.w.detach()
        return float(0.5 * self.w.detach() @ self.a @ self.w.detach())


ROWS = Draw(np.arange(3))


@pytest.mark.parametrize("rho", [0.01, 0.05, 0.5, 3.0])
def test_on_a_bowl_it_is_the_closed_form(rho: float) -> None:
    """∇L(w + ρ Aw ÷ ‖Aw‖) = Aw + ρ A²w ÷ ‖Aw‖."""
    bowl = Bowl([4.0, 1.0, 0.25], [0.3, -2.0, 7.0])
    a, w = np.diag([4.0, 1.0, 0.25]), np.array([0.3, -2.0, 7.0])
    loss = Sam(rho)(bowl, ROWS)
    expected = a @ w + rho * (a @ a @ w) / np.linalg.norm(a @ w)
    assert bowl.w.grad is not None
    assert bowl.w.grad.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert loss == pytest.approx(0.5 * w @ a @ w)
    assert [again for _, again in bowl.passes] == [False, True]


def test_the_point_it_looks_at_is_rho_away() -> None:
    bowl = Bowl([4.0, 1.0, 0.25], [0.3, -2.0, 7.0])
    Sam(0.2)(bowl, ROWS)
    (here, _), (there, _) = bowl.passes
    assert float((there - here).norm()) == pytest.approx(0.2)


def test_the_weights_are_back_to_the_bit_even_after_an_error() -> None:
    bowl = Bowl([4.0, 1.0, 0.25], [0.1, 0.2, 0.3])
    before = bowl.w.detach().clone()
    Sam(0.7)(bowl, ROWS)
    assert torch.equal(bowl.w.detach(), before)

    def fails(draw: Draw, repeat_pass: bool = False) -> float:
        if repeat_pass:
            raise MemoryError
        return Bowl.gradients(bowl, draw)

    bowl.gradients = fails  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        Sam(0.7)(bowl, ROWS)
    assert torch.equal(bowl.w.detach(), before)


def test_at_the_bottom_it_stays() -> None:
    bowl = Bowl([4.0, 1.0, 0.25], [0.0, 0.0, 0.0])
    Sam(0.05)(bowl, ROWS)
    assert bowl.w.grad is not None
    assert bowl.w.grad.tolist() == [0.0, 0.0, 0.0]
