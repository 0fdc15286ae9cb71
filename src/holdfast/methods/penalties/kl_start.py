"""Stay near what the model answered before the first step: a divergence from its own start.

    ℓ = CE(y) + λ · KL(p₀ ‖ p)        p₀ before the first step, p now, over all classes
    ℓ = CE(y) + λ · KL(q₀ ‖ q)        q(v) = p(v) ÷ (1 − p(y)) for every token v but the target y

The first is learning without forgetting (1606.09282, at the temperature 1), for classes. The second
masks the target (2605.29498) and is for models that write: what the model is to learn about y is
left to the cross-entropy, which the plain divergence opposes, and what it knew of all other tokens
stays. Of a row's target tokens it is the mean, in nats, as the loss is. Of weights it says nothing:
``l2_sp`` and ``ewc`` keep those near, ``replay`` keeps the answers to rows of other kinds.

What the model answered is asked of the start's weights in the run's own network, which changes
places for it: no second model, and with an adapter hardly a copy. It costs a forward pass, a third
of a step, of a ``share`` of the rows: the same ones all along, whose λ is the larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Ints
from holdfast.core.updates import ForwardPass, logits_of
from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.training.task import row_means

if TYPE_CHECKING:
    import torch

OVER = ("auto", "others", "all")
# Of a logit that takes no part: its probability is 0, and 0 times a finite number stays 0.
NOWHERE = -1e30
GOLDEN = 2654435769


def divergence(
    start: torch.Tensor, now: torch.Tensor, targets: torch.Tensor | None = None
) -> torch.Tensor:
    """KL(start ‖ now) [n] in nats of two tables of logits [n, classes]; with ``targets`` [n] over
    the other classes alone, whose probabilities are made to add to 1."""
    first, second = start.float(), now.float()
    if targets is not None:
        first, second = (x.scatter(1, targets[:, None], NOWHERE) for x in (first, second))
    first, second = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    return (first.exp() * (first - second)).sum(dim=-1)


def chosen(rows: Ints, share: float) -> Ints:
    """The places [k] of those ``rows`` [n] that are among a fixed ``share`` of all there are."""
    spread = (np.asarray(rows, dtype=np.uint64) * np.uint64(GOLDEN)) & np.uint64(0xFFFFFFFF)
    return np.flatnonzero(spread < share * 2**32)


@dataclass(frozen=True, slots=True)
class KLStart:
    """The loss term, and its settings: ``weight`` is λ; ``share`` of the rows whose answers are
    compared, each with λ ÷ share; ``over`` the ``others`` than the target or ``all`` classes,
    ``auto`` the others for what writes tokens."""

    weight: float = setting(1.0, above=0, most=1000)
    share: float = setting(0.4, above=0, most=1)
    over: str = setting("auto", words=OVER)
    name: ClassVar[str] = "kl_start"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if passed.start is None:
            raise Defect("methods.kl_start", "was given a pass that knows no start")
        at = chosen(passed.rows, self.share)
        if not len(at):
            return losses
        counts = passed.batch.get("counts")
        now, targets = logits_of(passed.output), _targets(passed.batch)
        places = torch.from_numpy(at).to(losses.device)
        writes = counts is not None and "tags" not in passed.batch
        others = self.over == "others" or (self.over == "auto" and writes)
        if counts is None:
            now, targets = now[places], targets[places]
        else:
            mine = torch.zeros(len(counts), dtype=torch.bool, device=losses.device)
            mine[places] = True
            tokens = mine.repeat_interleave(counts)
            now, targets, counts = now[tokens], targets[tokens], counts[places]
        apart = divergence(logits_of(passed.start(at)), now, targets if others else None)
        apart = row_means(apart, counts)
        return losses.index_add(0, places, apart, alpha=self.weight / self.share)


def _targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The class of each row, or of each target token of all rows, row by row."""
    for name in ("expected", "tags"):
        if name in batch:
            return batch[name]
    labels = batch["labels"]
    return labels.flatten()[batch["where"]] if "where" in batch else labels


METHODS.add("kl_start", Method(KLStart, lambda asked: Parts(terms=(asked,)), needs_one_answer=True))
