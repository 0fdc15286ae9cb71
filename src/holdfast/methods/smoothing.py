"""Label smoothing: a share ε of the target goes to all classes evenly (1512.00567).

    ℓ = (1 − ε) · CE(y) + ε · mean_k CE(k)

of a row's class, or averaged over a row's target tokens, whose classes are the vocabulary. Damps
over-confident logits. Only the training loss is smoothed; every loss that is shown or decided on is
plain cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.core.updates import ForwardPass, logits_of
from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.training.task import row_means

if TYPE_CHECKING:
    import torch


def uniform_loss(logits: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """The mean cross-entropy over all classes of each row [batch], in nats.

    ``logits`` [batch, classes]; with ``targets`` [batch], how many target tokens each row has, they
    are [all target tokens, vocabulary], row by row, and the answer is a mean over a row's.
    """
    return row_means(-logits.float().log_softmax(dim=-1).mean(dim=-1), targets)


@dataclass(frozen=True, slots=True)
class LabelSmoothing:
    """The loss term, and its setting: ``share`` is ε."""

    share: float = setting(0.1, above=0, most=1)
    name: ClassVar[str] = "label_smoothing"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        uniform = uniform_loss(logits_of(passed.output), passed.batch.get("counts"))
        return (1 - self.share) * losses + self.share * uniform


METHODS.add(
    "label_smoothing",
    Method(LabelSmoothing, lambda asked: Parts(terms=(asked,)), key="train.label_smoothing"),
)
