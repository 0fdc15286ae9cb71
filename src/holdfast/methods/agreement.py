"""Penalties on the disagreement between two predictions for a row: of two dropout passes
(``rdrop``), of two forms of the row (``pairing``), of before the first step and now
(``kl_start``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.errors import Defect, RecipeError
from holdfast.core.records import Decision, Ints
from holdfast.core.settings import setting
from holdfast.core.updates import Draw, ForwardPass, RowPool, batch_of_epoch, logits_of
from holdfast.methods.registry import METHODS, Method, Parts
from holdfast.training.task import row_means

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import LoadedModel


REGRESSION = "regression"


def disagreement(first: ForwardPass, second: ForwardPass) -> torch.Tensor:
    """½ (KL(P₁‖P₂) + KL(P₂‖P₁)) of each row [batch], in nats."""
    logits = [logits_of(one.output).float() for one in (first, second)]
    labels = first.batch.get("labels")
    if labels is not None and labels.is_floating_point():
        p, q = (one.sigmoid() for one in logits)
        # ½ Σ (p − q)(logit p − logit q), over the two outcomes of each label.
        of_labels: torch.Tensor = 0.5 * ((p - q) * (logits[0] - logits[1])).sum(dim=-1)
        return of_labels
    logs = [one.log_softmax(dim=-1) for one in logits]
    each = 0.5 * ((logs[0].exp() - logs[1].exp()) * (logs[0] - logs[1])).sum(dim=-1)
    return row_means(each, first.batch.get("counts"))


@dataclass(frozen=True, slots=True)
class RDrop:
    """R-Drop: penalize the divergence of two passes of a row under different dropout (2106.14448).

        ℓ = ½ (ℓ₁ + ℓ₂) + α/2 · ( KL(P₁‖P₂) + KL(P₂‖P₁) )

    with the predicted distributions P₁ and P₂ of a row; the mean over a row's target tokens; for
    several labels the sum over labels. ``alpha`` is α, without a unit: 0.1 to 1 for classifiers, 5
    for translation in the paper, which adds ℓ₁ and ℓ₂ where its code for classifiers takes their
    mean. Each row passes twice, so an update costs twice as much. Other changes of ℓ (such as label
    smoothing) apply to both passes. It needs some dropout: without it both passes are the same.

    The loss term, and its setting: ``alpha`` is α.
    """

    alpha: float = setting(1.0, above=0, most=1000)
    name: ClassVar[str] = "rdrop"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        return losses

    def between(
        self, first: ForwardPass, second: ForwardPass, losses: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        return 0.5 * (losses[0] + losses[1]) + self.alpha * disagreement(first, second)


def _check_dropout(loaded: LoadedModel) -> None:
    from holdfast.models.dropouts import dropouts_by_place

    if getattr(loaded.network, "problem", None) == REGRESSION:
        rule = "compares distributions, and a number has none"
        raise RecipeError("methods.rdrop", rule, "data.label_kind=number", "Leave it out.")
    rates = [one.rate for one in dropouts_by_place(loaded.network)]
    if not any(rate > 0 for rate in rates):
        rule = "compares passes with different dropout, but all dropouts of this network are off"
        remedy = "Set model.dropout=0.1, or methods.dropout, or leave it out."
        raise RecipeError("methods.rdrop", rule, None, remedy)
    on = sum(rate > 0 for rate in rates)
    because = f"{on} dropouts are on, at most {max(rates):g}; an update costs twice as much"
    notify(Decision("rdrop", "two passes per row", because))


METHODS.add(
    "rdrop", Method(RDrop, lambda settings: Parts(terms=(settings,), prepares=_check_dropout))
)


def repeated_row_pairs(rows: Ints) -> Ints:
    """The positions [pairs, 2] of rows [n] that occur twice: the first occurrence with the second,
    the third with the fourth."""
    order = np.argsort(rows, kind="stable")
    pairs, k = [], 0
    while k + 1 < len(order):
        same = rows[order[k]] == rows[order[k + 1]]
        if same:
            pairs.append((order[k], order[k + 1]))
        k += 2 if same else 1
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Logit pairing: two forms of a row should get the same prediction (1803.06373, 1809.10610).

        ℓ_i += weight · ½ · mean_k (z_k − z'_k)²

    for a row that is in an update in two forms with logits z and z' (for classes each minus its
    mean, since a constant shift changes no prediction). Every row is drawn twice in a row, so an
    update has half as many different rows, and an epoch twice as many updates. ``enrich`` defines
    the two forms: with ``augment.counterfactual`` they differ in whom the text is about, and half
    of them are the original row; without any enrichment they differ only by dropout.

    The source, the loss term, and its setting: ``weight``, without a unit.
    """

    weight: float = setting(1.0, above=0, most=1000)
    name: ClassVar[str] = "pairing"
    has_epochs: ClassVar[bool] = True
    compares_rows: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return max(1, -(-len(pool) // self._distinct_rows(pool)))

    def draw(self, pool: RowPool, step: int) -> Draw:
        rows = batch_of_epoch(
            pool, step, "pairing", lambda rng: rng.permutation(len(pool)), self._distinct_rows(pool)
        )
        return Draw(np.repeat(rows, 2) if pool.batch > 1 else rows)

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        pairs = torch.as_tensor(repeated_row_pairs(np.asarray(passed.rows)), device=losses.device)
        if not len(pairs):
            return losses
        logits = passed.output.logits.float()
        if not passed.batch["labels"].is_floating_point():
            logits = logits - logits.mean(dim=-1, keepdim=True)
        gap = (logits[pairs[:, 0]] - logits[pairs[:, 1]]).reshape(len(pairs), -1)
        each = 0.5 * self.weight * gap.square().mean(dim=-1)
        added = torch.zeros_like(losses).index_add(0, pairs.reshape(-1), each.repeat_interleave(2))
        return losses + added

    def _distinct_rows(self, pool: RowPool) -> int:
        return max(1, pool.batch // 2)


METHODS.add(
    "pairing",
    Method(Pairing, lambda settings: Parts(source=settings, terms=(settings,)), needs_classes=True),
)


OVER = ("auto", "others", "all")
# Of a masked logit: its probability is 0, and 0 times a finite number stays 0.
MASKED_LOGIT = -1e30
GOLDEN = 2654435769


def divergence(
    start: torch.Tensor, now: torch.Tensor, targets: torch.Tensor | None = None
) -> torch.Tensor:
    """KL(start ‖ now) [n] in nats of two tables of logits [n, classes]; with ``targets`` [n] only
    over the other classes, whose probabilities are normalized to 1."""
    first, second = start.float(), now.float()
    if targets is not None:
        first, second = (x.scatter(1, targets[:, None], MASKED_LOGIT) for x in (first, second))
    first, second = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    return (first.exp() * (first - second)).sum(dim=-1)


def fixed_share_of_rows(rows: Ints, share: float) -> Ints:
    """The positions [k] of those ``rows`` [n] that belong to a fixed ``share`` of all rows."""
    spread = (np.asarray(rows, dtype=np.uint64) * np.uint64(GOLDEN)) & np.uint64(0xFFFFFFFF)
    return np.flatnonzero(spread < share * 2**32)


@dataclass(frozen=True, slots=True)
class KLStart:
    """Stay near the base model's predictions: a divergence from those before the first step.

        ℓ = CE(y) + λ · KL(p₀ ‖ p)    p₀ before the first step, p now, over all classes
        ℓ = CE(y) + λ · KL(q₀ ‖ q)    q(v) = p(v) ÷ (1 − p(y)) for every token v but y, its target

    The first is learning without forgetting (1606.09282, at temperature 1), for classes. The second
    masks the target (2605.29498) and is for generative models: what the model should learn about y
    is left to the cross-entropy, which the plain divergence opposes, and the probabilities of all
    other tokens are preserved. It is the mean over a row's target tokens, in nats, like the loss.
    It does not constrain the weights: ``l2_sp`` and ``ewc`` do; ``replay`` preserves the
    predictions on rows of other kinds.

    The base model's predictions come from the run's own network, into which the initial weights are
    swapped: no second model is needed, and with an adapter hardly a copy. It costs a forward pass,
    a third of a step, for a ``share`` of the rows: always the same ones, with a larger λ.

    The loss term, and its settings: ``weight`` is λ; ``share`` of the rows whose predictions are
    compared, each with λ ÷ share; ``over`` the ``others`` than the target or ``all`` classes,
    ``auto`` the others for models that generate tokens.
    """

    weight: float = setting(1.0, above=0, most=1000)
    share: float = setting(0.4, above=0, most=1)
    over: str = setting("auto", choices=OVER)
    name: ClassVar[str] = "kl_start"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if passed.start is None:
            raise Defect("methods.kl_start", "was given a pass without the base model's output")
        compared_rows = fixed_share_of_rows(passed.rows, self.share)
        if not len(compared_rows):
            return losses
        counts = passed.batch.get("counts")
        now, targets = logits_of(passed.output), _targets(passed.batch)
        row_places = torch.from_numpy(compared_rows).to(losses.device)
        writes = counts is not None and "tags" not in passed.batch
        others = self.over == "others" or (self.over == "auto" and writes)
        if counts is None:
            now, targets = now[row_places], targets[row_places]
        else:
            is_compared = torch.zeros(len(counts), dtype=torch.bool, device=losses.device)
            is_compared[row_places] = True
            tokens = is_compared.repeat_interleave(counts)
            now, targets, counts = now[tokens], targets[tokens], counts[row_places]
        row_divergence = divergence(
            logits_of(passed.start(compared_rows)), now, targets if others else None
        )
        row_divergence = row_means(row_divergence, counts)
        return losses.index_add(0, row_places, row_divergence, alpha=self.weight / self.share)


def _targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The class of each row, or of each target token of all rows, row by row."""
    for name in ("expected", "tags"):
        if name in batch:
            return batch[name]
    labels = batch["labels"]
    return labels.flatten()[batch["where"]] if "where" in batch else labels


METHODS.add(
    "kl_start", Method(KLStart, lambda settings: Parts(terms=(settings,)), needs_one_answer=True)
)
