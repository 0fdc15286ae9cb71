"""L1: weights pulled to zero by the same amount whatever their size, so that many become exactly
zero (lasso, Tibshirani 1996; proximal steps, 0912.3522).

    L(w) + λ Σ |w|,   after the optimizer's step with the rate η:  w ← sign(w) · max(|w| − ηλ, 0)

``strength`` is λ, in nats per unit of weight. With SGD the fixed point is that of the penalised
loss. Adam's steps are about η whatever the gradient, so there λ is compared with 1, not with
gradients: a weight whose mean gradient is below λ times its root mean square goes to zero, and from
1 on no gradient holds any. Over a run a weight is pulled by λ times the sum of the rates at most,
0.015 λ for 300 updates that fall linearly from 1e-4: a head that begins as a linear probe gets few
zeros in so short a run. Unlike L2 (``methods/penalties/l2.py``), which makes weights small, it
chooses; with correlated features it keeps one of them, where ``methods/penalties/elastic_net.py``
keeps both.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.penalties.base import PLACES, Proximal, penalty
from holdfast.methods.registry import METHODS, Method, Parts, setting


@dataclass(frozen=True, slots=True)
class L1:
    """``strength`` is λ; ``place`` the weights that are pulled: ``head`` (which features the last
    layer reads) or ``all``."""

    strength: float = setting(0.3, above=0)
    place: str = setting("head", words=PLACES)


def _parts(asked: L1) -> Parts:
    return penalty("l1", asked.place, lambda: Proximal("l1", asked.place, asked.strength))


METHODS.add("l1", Method(L1, _parts))
