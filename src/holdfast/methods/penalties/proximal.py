"""Penalties that are taken by a step of their own after the optimizer's, so that weights become
exactly zero: L1, and the elastic net (``base.py`` says how such a step is defined).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.core.events import Place
from holdfast.core.records import Decision
from holdfast.methods.penalties.base import PLACES, penalty, pulled, with_gradient
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Network
    from holdfast.training.run import Run


def shrink(weight: torch.Tensor, threshold: float, divisor: float = 1.0) -> None:
    """Set each w to sign(w) · max(|w| − ``threshold``, 0) ÷ ``divisor``, in place: the proximal
    step of threshold · |w| + (divisor − 1) · w² ÷ 2."""
    import torch

    with torch.no_grad():
        weight.copy_(torch.nn.functional.softshrink(weight, threshold))
        if divisor != 1.0:
            weight.div_(divisor)


class Proximal:
    """The listener of a penalty that is taken by proximal steps: ``absolute`` · |w| +
    ``square`` · w² ÷ 2 of each weight of ``place``. At the end it says what became zero."""

    place: Place = "change"

    def __init__(self, name: str, where: str, absolute: float, square: float = 0.0) -> None:
        self.name = name
        self._where, self._absolute, self._square = where, absolute, square
        self._weights: dict[str, torch.nn.Parameter] = {}

    def run_start(self, run: Run) -> None:
        self._weights = pulled(run.network, self._where)

    def step_done(self, run: Run) -> None:
        assert run.optimizer is not None
        rates = {id(p): g["lr"] for g in run.optimizer.param_groups for p in g["params"]}
        for _, weight in with_gradient(run, self._weights):
            rate = float(rates[id(weight)])
            shrink(weight, rate * self._absolute, 1 + rate * self._square)

    def run_end(self, run: Run) -> None:
        made = what_is_zero(self.name, run.network, self._weights, run.best.step)
        run.job.journal.decide(run.step, made)


def what_is_zero(
    method: str, network: Network, weights: dict[str, torch.nn.Parameter], step: int
) -> Decision:
    """How many of the weights are exactly zero, and how many features the head does not read, in
    the state of this ``step``."""
    total = sum(weight.numel() for weight in weights.values())
    zero = sum(int((weight == 0).sum()) for weight in weights.values())
    because = f"{zero:,} of {total:,} weights are exactly zero in the state of step {step}"
    head = getattr(network.head, "weight", None)
    if head is not None and head.ndim == 2 and any(head is one for one in weights.values()):
        unread = int((head == 0).all(dim=0).sum())
        share = unread / head.shape[1]
        because += f"; the head reads {head.shape[1] - unread:,} of {head.shape[1]:,} features, "
        because += f"{share:.0%} of them have no weight in any output"
    chosen = f"{zero / max(1, total):.1%} of the weights are zero"
    return Decision(f"what {method} left", chosen, because, prominent=True)


@dataclass(frozen=True, slots=True)
class L1:
    """L1: weights pulled to zero by the same amount whatever their size, so that many become
    exactly zero (lasso, Tibshirani 1996; proximal steps, 0912.3522).

        L(w) + λ Σ |w|,  after the optimizer's step with the rate η:  w ← sign(w) · max(|w| − ηλ, 0)

    ``strength`` is λ, in nats per unit of weight. With SGD the fixed point is that of the penalised
    loss. Adam's steps are about η whatever the gradient, so there λ is compared with 1, not with
    gradients: a weight whose mean gradient is below λ times its root mean square goes to zero, and
    from 1 on no gradient holds any. Over a run a weight is pulled by λ times the sum of the rates
    at most, 0.015 λ for 300 updates that fall linearly from 1e-4: a head that begins as a linear
    probe gets few zeros in so short a run. Unlike L2, which makes weights small, it chooses; with
    correlated features it keeps one of them, where the elastic net keeps both.

    ``place`` are the weights that are pulled: ``head`` (which features the last layer reads) or
    ``all``."""

    strength: float = setting(0.3, above=0)
    place: str = setting("head", words=PLACES)


def _of_l1(asked: L1) -> Parts:
    return penalty("l1", asked.place, lambda: Proximal("l1", asked.place, asked.strength))


METHODS.add("l1", Method(L1, _of_l1))


@dataclass(frozen=True, slots=True)
class ElasticNet:
    """Elastic net: L1 and L2 together, by proximal steps (Zou and Hastie 2005).

        L(w) + λ Σ ( ρ |w| + (1 − ρ) w² ÷ 2 ),   after the optimizer's step with the rate η:
        w ← sign(w) · max(|w| − ηλρ, 0) ÷ (1 + ηλ(1 − ρ))

    ``strength`` is λ, in nats per unit of weight, ``ratio`` ρ in (0, 1], as scikit-learn's
    ``alpha`` and ``l1_ratio``. Of features that say the same, lasso (ρ = 1) keeps one by chance;
    the square shares the weight among them. Both parts are taken after the step, so an adaptive
    optimizer divides neither, unlike ``l2``. ``place`` are the weights that are pulled, as for L1.
    """

    strength: float = setting(0.3, above=0)
    ratio: float = setting(0.5, above=0, most=1)
    place: str = setting("head", words=PLACES)


def _of_elastic_net(asked: ElasticNet) -> Parts:
    absolute, square = asked.strength * asked.ratio, asked.strength * (1 - asked.ratio)
    return penalty(
        "elastic_net", asked.place, lambda: Proximal("elastic_net", asked.place, absolute, square)
    )


METHODS.add("elastic_net", Method(ElasticNet, _of_elastic_net))
