"""Elastic net: L1 and L2 together, by proximal steps (Zou and Hastie 2005).

    L(w) + λ Σ ( ρ |w| + (1 − ρ) w² ÷ 2 ),   after the optimizer's step with the rate η:
    w ← sign(w) · max(|w| − ηλρ, 0) ÷ (1 + ηλ(1 − ρ))

``strength`` is λ, in nats per unit of weight, ``ratio`` ρ in (0, 1], as scikit-learn's ``alpha``
and ``l1_ratio``. Of features that say the same, lasso (``methods/penalties/l1.py``, ρ = 1) keeps
one by chance; the square shares the weight among them. Both parts are taken after the step, so an
adaptive optimizer divides neither, unlike ``methods/penalties/l2.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.penalties.base import PLACES, Proximal, penalty
from holdfast.methods.registry import METHODS, Method, Parts, setting


@dataclass(frozen=True, slots=True)
class ElasticNet:
    """``strength`` is λ, ``ratio`` ρ; ``place`` the weights that are pulled, as for L1."""

    strength: float = setting(0.3, above=0)
    ratio: float = setting(0.5, above=0, most=1)
    place: str = setting("head", words=PLACES)


def _parts(asked: ElasticNet) -> Parts:
    absolute, square = asked.strength * asked.ratio, asked.strength * (1 - asked.ratio)
    return penalty(
        "elastic_net", asked.place, lambda: Proximal("elastic_net", asked.place, absolute, square)
    )


METHODS.add("elastic_net", Method(ElasticNet, _parts))
