"""Mixup of hidden states: two rows in one, their labels by shares (1710.09412; of hidden states
1806.05236).

For the features h of a row i and of a partner j of its update, λ ~ Beta(α, α),

    h = λ h_i + (1 − λ) h_j,  ℓ = λ CE(h, y_i) + (1 − λ) CE(h, y_j)

at the last hidden state, the features that the linear head reads. The head being linear, the logits
of the mixed features are the mixed logits, to the last digit of the arithmetic, so nothing passes
the network again. ``enrich.mixup`` mixes pixels instead, before the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.updates import ForwardPass
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch


def mixed_losses(
    logits: torch.Tensor, labels: torch.Tensor, partners: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """The loss [n] of rows whose logits [n, classes] are mixed with those of the rows at
    ``partners`` [n], ``shares`` [n] in [0, 1] being the rows' own."""
    import torch

    each = torch.nn.functional.cross_entropy
    mixed = shares[:, None] * logits + (1 - shares[:, None]) * logits[partners]
    own = each(mixed, labels, reduction="none")
    return shares * own + (1 - shares) * each(mixed, labels[partners], reduction="none")


def pairs_of(rows: Ints, alpha: float) -> tuple[Ints, Floats]:
    """For each row of an update its partner's place and its own share, both [n].

    A function of which ``rows`` [n] these are, in whatever order they come: no state is needed, and
    what a row is mixed with changes as the updates are drawn anew. All rows in one update are
    mixed alike in each.
    """
    order = np.argsort(rows, kind="stable")
    random = generator(0, "mixup", *rows[order].tolist())
    partners, shares = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    partners[order] = order[random.permutation(len(rows))]
    shares[order] = random.beta(alpha, alpha, len(rows))
    return partners, shares


@dataclass(frozen=True, slots=True)
class Mixup:
    """The loss term, and its setting: ``alpha`` of the shares' Beta, small for little mixing. It
    takes the place of what other terms made of the losses."""

    alpha: float = setting(0.4, above=0, most=100)
    name: ClassVar[str] = "mixup"
    compares_rows: ClassVar[bool] = True

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        logits, labels = passed.output.logits.float(), passed.batch["labels"]
        partners, shares = pairs_of(np.asarray(passed.rows), self.alpha)
        places = torch.from_numpy(partners).to(logits.device)
        by = torch.from_numpy(shares).to(logits.device, logits.dtype)
        return mixed_losses(logits, labels, places, by)


METHODS.add("mixup", Method(Mixup, lambda asked: Parts(terms=(asked,)), needs_classes=True))
