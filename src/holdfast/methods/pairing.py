"""Logit pairing: two forms of a row are asked for the same answer (1803.06373, 1809.10610).

    ℓ_i += weight · ½ · mean_k (z_k − z'_k)²

for a row that stands in an update in two forms with logits z and z' (of classes each less its mean,
since a shift of all is no other answer). Every row is drawn twice side by side, so an update has
half as many different rows, and an epoch twice as many updates. What the two forms are, ``enrich``
says: with ``enrich.counterfactual`` they differ in whom the text is about, and half of them are
the row as it stands; without any enrichment they differ by dropout alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.updates import Draw, ForwardPass, RowPool, batch_of_epoch
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch


def pairs_among(rows: Ints) -> Ints:
    """Places [pairs, 2] of rows [n] that stand there twice: the first with the second, the third
    with the fourth."""
    order = np.argsort(rows, kind="stable")
    found, k = [], 0
    while k + 1 < len(order):
        same = rows[order[k]] == rows[order[k + 1]]
        if same:
            found.append((order[k], order[k + 1]))
        k += 2 if same else 1
    return np.array(found, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Pairing:
    """The source, the loss term, and its setting: ``weight``, without a unit."""

    weight: float = setting(1.0, above=0, most=1000)
    name: ClassVar[str] = "pairing"
    has_epochs: ClassVar[bool] = True
    compares_rows: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return max(1, -(-len(pool) // self._different(pool)))

    def draw(self, pool: RowPool, step: int) -> Draw:
        rows = batch_of_epoch(
            pool, step, "pairing", lambda rng: rng.permutation(len(pool)), self._different(pool)
        )
        return Draw(np.repeat(rows, 2) if pool.batch > 1 else rows)

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        pairs = torch.as_tensor(pairs_among(np.asarray(passed.rows)), device=losses.device)
        if not len(pairs):
            return losses
        logits = passed.output.logits.float()
        if not passed.batch["labels"].is_floating_point():
            logits = logits - logits.mean(dim=-1, keepdim=True)
        gap = (logits[pairs[:, 0]] - logits[pairs[:, 1]]).reshape(len(pairs), -1)
        each = 0.5 * self.weight * gap.square().mean(dim=-1)
        added = torch.zeros_like(losses).index_add(0, pairs.reshape(-1), each.repeat_interleave(2))
        return losses + added

    def _different(self, pool: RowPool) -> int:
        return max(1, pool.batch // 2)


METHODS.add(
    "pairing",
    Method(Pairing, lambda asked: Parts(source=asked, terms=(asked,)), needs_classes=True),
)
