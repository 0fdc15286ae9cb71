"""R-Drop: two passes of a row under different dropout are asked to agree (2106.14448).

    ℓ = ½ (ℓ₁ + ℓ₂) + α/2 · ( KL(P₁‖P₂) + KL(P₂‖P₁) )

of the predictive distributions P₁ and P₂ of a row; of a row's target tokens their mean, of several
labels the sum over labels. ``alpha`` is α, without a unit: 0.1 to 1 for classifiers, 5 for
translation in the paper, which adds ℓ₁ and ℓ₂ where its code for classifiers takes their mean.
Each row passes twice, so an update costs twice as much. What ℓ is besides (label smoothing, say)
holds for both passes. It needs some dropout: without, the two passes are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.core.updates import ForwardPass, logits_of
from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.training.task import row_means

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Loaded

REGRESSION = "regression"


def disagreement(first: ForwardPass, second: ForwardPass) -> torch.Tensor:
    """½ (KL(P₁‖P₂) + KL(P₂‖P₁)) of each row [batch], in nats."""
    logits = [logits_of(one.output).float() for one in (first, second)]
    labels = first.batch.get("labels")
    if labels is not None and labels.is_floating_point():
        p, q = (one.sigmoid() for one in logits)
        # ½ Σ (p − q)(logit p − logit q), of each label's two answers.
        of_labels: torch.Tensor = 0.5 * ((p - q) * (logits[0] - logits[1])).sum(dim=-1)
        return of_labels
    logs = [one.log_softmax(dim=-1) for one in logits]
    each = 0.5 * ((logs[0].exp() - logs[1].exp()) * (logs[0] - logs[1])).sum(dim=-1)
    return row_means(each, first.batch.get("counts"))


@dataclass(frozen=True, slots=True)
class RDrop:
    """The loss term, and its setting: ``alpha`` is α."""

    alpha: float = setting(1.0, above=0, most=1000)
    name: ClassVar[str] = "rdrop"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        return losses

    def between(
        self, first: ForwardPass, second: ForwardPass, losses: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        return 0.5 * (losses[0] + losses[1]) + self.alpha * disagreement(first, second)


def _prepares(loaded: Loaded) -> None:
    from holdfast.models.places import dropouts_by_place

    if getattr(loaded.network, "problem", None) == REGRESSION:
        rule = "compares distributions, and a number has none"
        raise RecipeError("methods.rdrop", rule, "data.label_kind=number", "Leave it out.")
    rates = [one.rate for one in dropouts_by_place(loaded.network)]
    if not any(rate > 0 for rate in rates):
        rule = "compares passes of different dropout, and this network has none that is on"
        remedy = "Set model.dropout=0.1, or methods.dropout, or leave it out."
        raise RecipeError("methods.rdrop", rule, None, remedy)
    on = sum(rate > 0 for rate in rates)
    because = f"{on} dropouts are on, at most {max(rates):g}; an update costs twice as much"
    notify(Decision("rdrop", "two passes a row", because))


METHODS.add("rdrop", Method(RDrop, lambda asked: Parts(terms=(asked,), prepares=_prepares)))
