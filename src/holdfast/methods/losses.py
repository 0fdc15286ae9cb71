"""Row losses other than plain cross-entropy, each as a loss term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.settings import setting
from holdfast.core.updates import ForwardPass, logits_of
from holdfast.methods.registry import METHODS, Method, Parts
from holdfast.training.task import row_means

if TYPE_CHECKING:
    import torch


def uniform_loss(logits: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """The mean cross-entropy over all classes of each row [batch], in nats.

    ``logits`` [batch, classes]. With ``targets`` [batch], the number of target tokens of each row,
    they are [all target tokens, vocabulary], row by row, and the result is the mean over a row's.
    """
    return row_means(-logits.float().log_softmax(dim=-1).mean(dim=-1), targets)


@dataclass(frozen=True, slots=True)
class LabelSmoothing:
    """Label smoothing: a share ε of the target goes to all classes evenly (1512.00567).

        ℓ = (1 − ε) · CE(y) + ε · mean_k CE(k)

    for a row's class, or averaged over a row's target tokens, whose classes are the vocabulary. It
    reduces overconfident logits. Only the training loss is smoothed; every loss that is shown or
    used in decisions is plain cross-entropy.

    The loss term, and its setting: ``share`` is ε.
    """

    share: float = setting(0.1, above=0, most=1)
    name: ClassVar[str] = "label_smoothing"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        uniform = uniform_loss(logits_of(passed.output), passed.batch.get("counts"))
        return (1 - self.share) * losses + self.share * uniform


METHODS.add(
    "label_smoothing",
    Method(LabelSmoothing, lambda settings: Parts(terms=(settings,)), key="train.label_smoothing"),
)


@dataclass(frozen=True, slots=True)
class Focal:
    """Focal loss: rows that are already correct count less (1708.02002).

        ℓ = (1 − p_y)^γ · CE(y),  p_y = exp(−CE(y))

    for a row's class. Made for detectors with a thousand easy negatives per positive. It does not
    use or correct class frequencies: its probabilities are biased to the middle, which temperature
    scaling partly corrects. ``methods/balance.py`` does correct them.

    The loss term, and its setting: ``gamma`` is γ.
    """

    gamma: float = setting(2.0, above=0, most=10)
    name: ClassVar[str] = "focal"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        logits, labels = passed.output.logits.float(), passed.batch["labels"]
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        # expm1 keeps the gradient of a correct row to seven digits.
        return (-torch.expm1(-plain)).clamp(min=1e-12) ** self.gamma * losses


METHODS.add("focal", Method(Focal, lambda settings: Parts(terms=(settings,)), needs_classes=True))


# Below it the two losses are the same to float32's last digit.
LEAST = 1e-12


def generalized(losses: torch.Tensor, q: float) -> torch.Tensor:
    """The generalized cross-entropy [n] of rows whose cross-entropy is ``losses`` [n], in nats;
    ``q`` in (0, 1]."""
    import torch

    return -torch.expm1(-q * losses) / q


@dataclass(frozen=True, slots=True)
class GeneralizedCrossEntropy:
    """Generalized cross-entropy: rows that the model considers wrong count less (1805.07836).

        ℓ = (1 − p_y^q) ÷ q,  p_y = exp(−CE(y))

    for a row's class: cross-entropy for q → 0, the mean absolute error for q = 1, whose gradient is
    that of cross-entropy times p_y^q. A row with a wrong label keeps a small p_y while the others
    are learned, so it contributes less; so does a row that is merely hard, which is the price
    (benchmarks/results/heads.md). ``Focal`` does the opposite: it weights wrong rows more.

    The loss term, and its setting ``q``; changes of a row's loss by other terms, such as its
    weight, stay a factor.
    """

    q: float = setting(0.7, above=0, most=1)
    name: ClassVar[str] = "gce"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        logits, labels = passed.output.logits.float(), passed.batch["labels"]
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return generalized(plain, self.q) / plain.clamp(min=LEAST) * losses


METHODS.add(
    "gce",
    Method(GeneralizedCrossEntropy, lambda settings: Parts(terms=(settings,)), needs_classes=True),
)


def mixed_losses(
    logits: torch.Tensor, labels: torch.Tensor, partners: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """The loss [n] of rows whose logits [n, classes] are mixed with those of the rows at
    ``partners`` [n], ``shares`` [n] in [0, 1] being the rows' own."""
    import torch

    cross_entropy = torch.nn.functional.cross_entropy
    mixed = shares[:, None] * logits + (1 - shares[:, None]) * logits[partners]
    own_losses = cross_entropy(mixed, labels, reduction="none")
    return shares * own_losses + (1 - shares) * cross_entropy(
        mixed, labels[partners], reduction="none"
    )


def pairs_of(rows: Ints, alpha: float) -> tuple[Ints, Floats]:
    """For each row of an update the position of its partner and its own share, both [n].

    A function of the ``rows`` [n], in any order: no state is needed, and a row gets other partners
    as the updates are drawn again. If all rows are in one update, they are mixed alike in each.
    """
    order = np.argsort(rows, kind="stable")
    random = generator(0, "mixup", *rows[order].tolist())
    partners, shares = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    partners[order] = order[random.permutation(len(rows))]
    shares[order] = random.beta(alpha, alpha, len(rows))
    return partners, shares


@dataclass(frozen=True, slots=True)
class Mixup:
    """Mixup of hidden states: two rows in one, their labels by shares (1710.09412; for hidden
    states 1806.05236).

    For the features h of a row i and of a partner j of its update, λ ~ Beta(α, α),

        h = λ h_i + (1 − λ) h_j,  ℓ = λ CE(h, y_i) + (1 − λ) CE(h, y_j)

    at the last hidden state, the input of the linear head. Since the head is linear, the logits of
    the mixed features are the mixed logits, to the last digit of the arithmetic, so nothing passes
    through the network again. ``augment.mixup`` mixes pixels instead, before the network.

    The loss term, and its setting: ``alpha`` of the shares' Beta, small for little mixing. It
    replaces what other terms made of the losses.
    """

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


METHODS.add("mixup", Method(Mixup, lambda settings: Parts(terms=(settings,)), needs_classes=True))
