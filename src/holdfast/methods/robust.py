"""Generalized cross-entropy: rows that the model holds for wrong count less (1805.07836).

    ℓ = (1 − p_y^q) ÷ q,  p_y = exp(−CE(y))

of a row's class: cross-entropy for q → 0, the mean absolute error for q = 1, whose gradient is that
of cross-entropy times p_y^q. A row with a wrong label keeps a small p_y while the others are
learned, so it pulls less; so does a row that is merely hard, which is the price
(benchmarks/methods.md). ``methods/focal.py`` does the opposite: it listens to rows that are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.core.updates import ForwardPass
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

# Below it the two losses are the same to float32's last digit.
LEAST = 1e-12


def generalized(losses: torch.Tensor, q: float) -> torch.Tensor:
    """The generalized cross-entropy [n] of rows whose cross-entropy is ``losses`` [n], in nats;
    ``q`` in (0, 1]."""
    import torch

    return -torch.expm1(-q * losses) / q


@dataclass(frozen=True, slots=True)
class GeneralizedCrossEntropy:
    """The loss term, and its setting ``q``; what other terms have made of a row's loss, such as its
    weight, stays a factor."""

    q: float = setting(0.7, above=0, most=1)
    name: ClassVar[str] = "gce"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        logits, labels = passed.output.logits.float(), passed.batch["labels"]
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return generalized(plain, self.q) / plain.clamp(min=LEAST) * losses


METHODS.add(
    "gce", Method(GeneralizedCrossEntropy, lambda asked: Parts(terms=(asked,)), needs_classes=True)
)
