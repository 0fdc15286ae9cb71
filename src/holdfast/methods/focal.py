"""Focal loss: rows that are right already count less (1708.02002).

    ℓ = (1 − p_y)^γ · CE(y),  p_y = exp(−CE(y))

of a row's class. Made for detectors with a thousand easy negatives to a positive. It knows no class
rates and does not correct for them: its probabilities lean towards the middle, which the
temperature undoes in part. ``methods/heads/balance.py`` says what does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.core.updates import ForwardPass
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Focal:
    """The loss term, and its setting: ``gamma`` is γ."""

    gamma: float = setting(2.0, above=0, most=10)
    name: ClassVar[str] = "focal"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        logits, labels = passed.output.logits.float(), passed.batch["labels"]
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        # expm1 keeps the gradient of a row that is right to seven digits.
        return (-torch.expm1(-plain)).clamp(min=1e-12) ** self.gamma * losses


METHODS.add("focal", Method(Focal, lambda asked: Parts(terms=(asked,)), needs_classes=True))
