"""Rare classes: learn from them as much as from common ones, and decide for other rates of them.

Two things, which are settled apart.

``by`` is how rare classes are learned from more. ``draw``: an epoch of n rows over K classes gives
each class n ÷ K places, or with ``strength`` s in (0, 1) a share in proportion to its rows to the
power 1 − s. A class with more rows than places gives a sample without replacement (other rows in
each epoch), one with fewer every row, as often as all of them fit, and some once more. ``weights``:
rows pass as they are, and the loss of a row weighs n_y^−s, 1 on average. ``effective``: it weighs
1 ÷ (1 − β^n_y), the inverse of an effective number of rows (1901.05555). ``none``: neither. Unlike
weights, which make single updates jump, drawing changes which rows travel.

``target`` is the population that the answers are for. Learning from an even draw makes a model that
answers as if classes were alike frequent (``drawn``: so it stays). With any other target the model
learns at the rates of the rows all the same: if the update's rows stand for the rates q, and the
training rows have the rates p, the loss of row i is

    −log softmax(z + log q − log p)[y_i]

so that z, which everything else sees, are the logits at p, whatever was drawn. Validation losses,
the choice of the state and the temperature are then those of the rows as they are. At the end the
last layer's bias moves them to the target (``rates.py``): ``rows`` leaves them there, which are
probabilities at the true rates; ``even`` answers for classes alike, ``half`` for rates half of the
way there (in proportion to √p), which macro-F1 asks for; a table states the rates of the population
that the model will meet; ``auto`` is ``half`` unless the validation rows prove another of these
better for macro-F1. Logit adjustment of the loss (2007.07314) is ``by: none`` with ``target: even``
or ``half``: its constant is the bias's, which is free, and the two came out the same to the digit
(benchmarks/methods.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.updates import Draw, ForwardPass, RowPool, batch_of_epoch
from holdfast.methods.heads.class_rates import between, shares_of, stated
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

# The middle of the four that 1901.05555 tries.
BETA = 0.999
WAYS = ("draw", "weights", "effective", "none")
TARGET = "methods.balance.target"
TARGETS = ("drawn", "rows", "half", "even", "auto")


def places_of(sizes: Ints, total: int, strength: float) -> Ints:
    """How many of ``total`` places each class [K] of these sizes gets: in proportion to
    size^(1 − strength), the largest remainders rounded up."""
    share = np.asarray(sizes, dtype=np.float64) ** (1 - strength)
    exact = total * share / share.sum()
    places: Ints = np.floor(exact).astype(np.int64)
    left = total - int(places.sum())
    places[np.argsort(places - exact, kind="stable")[:left]] += 1
    return places


def balanced(labels: Ints, strength: float, rng: np.random.Generator) -> Ints:
    """Positions [n] of an epoch over rows of these ``labels`` [n], in an order of chance."""
    present, sizes = np.unique(labels, return_counts=True)
    chosen = []
    for label, size, places in zip(
        present, sizes, places_of(sizes, len(labels), strength), strict=True
    ):
        rows = np.flatnonzero(labels == label)
        every, more = divmod(int(places), int(size))
        chosen += [np.tile(rows, every), rng.permutation(rows)[:more]]
    return rng.permutation(np.concatenate(chosen))


@dataclass(frozen=True, slots=True)
class Balance:
    """The settings, and the source of ``by: draw``: ``strength``, 1 for classes alike, near 0 for
    them as they are; ``by`` and ``target`` as the module says."""

    strength: float = setting(1.0, above=0, most=1)
    by: str = setting("draw", words=WAYS)
    target: str | Mapping[str, float] = setting("drawn", words=TARGETS, shares=True)
    name: ClassVar[str] = "balance"
    has_epochs: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: RowPool, step: int) -> Draw:
        labels = pool.labels
        assert labels is not None

        def order(rng: np.random.Generator) -> Ints:
            return balanced(labels, self.strength, rng)

        return Draw(batch_of_epoch(pool, step, "balance", order))


@dataclass(frozen=True, slots=True)
class BalancedLoss:
    """The loss term. ``weights`` and ``offset`` [classes] are those of the training rows: the
    weight of a class's rows, and log q − log p; without rows (``of_rows``) nothing is changed."""

    asked: Balance
    weights: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    name: ClassVar[str] = "balance"
    compares_rows: ClassVar[bool] = False

    def of_rows(self, labels: Ints, classes: Sequence[str]) -> BalancedLoss:
        """The term for training rows of these ``labels`` [n]."""
        weights = weights_of(self.asked, labels, len(classes))
        shares = shares_of(labels, len(classes))
        offset: Floats = np.zeros(len(classes))
        if self.asked.target != "drawn":
            drawn: Floats = np.asarray(shares * weights)
            if self.asked.by == "draw":
                drawn = between(shares, self.asked.strength)
            offset = np.asarray(np.log(drawn / drawn.sum()) - np.log(shares))
        return BalancedLoss(self.asked, tuple(weights.tolist()), tuple(offset.tolist()))

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if not self.weights:
            return losses
        logits, labels = passed.output.logits.float(), passed.batch["labels"]
        if any(self.offset):
            offset = torch.tensor(self.offset, dtype=torch.float32, device=logits.device)
            losses = torch.nn.functional.cross_entropy(logits + offset, labels, reduction="none")
        return (
            torch.tensor(self.weights, dtype=torch.float32, device=logits.device)[labels] * losses
        )


def weights_of(asked: Balance, labels: Ints, classes: int) -> Floats:
    """The weight of a row of each class [classes], 1 on average over these rows [n]."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    found = np.maximum(counts, 1)
    if asked.by == "weights":
        raw = found**-asked.strength
    elif asked.by == "effective":
        raw = (1 - BETA) / (1 - BETA**found)
    else:
        return np.ones(classes)
    return np.asarray(raw * counts.sum() / (raw * counts).sum())


def changes_losses(by: str, target: object) -> bool:
    """Whether it acts on the losses: by weights, or by moving the logits of the loss."""
    return by in ("weights", "effective") or (by == "draw" and target != "drawn")


def asked_target(methods: Mapping[str, object]) -> Any:
    """The ``target`` of these methods (name: settings); ``None`` where answers stay as learned."""
    asked = methods.get("balance")
    target = asked.get("target", "drawn") if isinstance(asked, Mapping) else "drawn"
    return None if target == "drawn" else target


def check_target(methods: Mapping[str, object], classes: Sequence[str]) -> None:
    """Refuse a stated population whose classes are not those of the rows, before any step."""
    target = asked_target(methods)
    if isinstance(target, Mapping):
        stated(target, classes, TARGET)


def _parts(asked: Balance) -> Parts:
    source = asked if asked.by == "draw" else None
    moves = changes_losses(asked.by, asked.target)
    return Parts(source=source, terms=(BalancedLoss(asked),) if moves else ())


METHODS.add("balance", Method(Balance, _parts, needs_classes=True))
