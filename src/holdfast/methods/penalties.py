"""Penalties on weights: by squares (``l2``, ``l2_sp``, ``ewc``) and by steps that make weights
exactly zero (``l1``, ``elastic_net``).

A penalty R(w) with strength λ is applied in one of two ways. As a loss term, λ ∇R is added to the
gradient before it is clipped (``backward_done``), and the optimizer treats it like the rest: Adam
divides it by the root of its mean square, so a weight with large gradients is hardly pulled. As a
proximal step after the optimizer's (``step_done``), the weights are set to

    prox(w) = argmin_u  ½ ‖u − w‖² + η λ R(u)

with the group's current rate η, whatever the optimizer; this makes weights exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.events import Listener, Place
from holdfast.core.records import Decision
from holdfast.core.settings import setting
from holdfast.core.wording import percent_phrase
from holdfast.methods.registry import METHODS, Method, Parts
from holdfast.models.compute.prefix import train_mode
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import LoadedModel, Network
    from holdfast.training.run import Run


PLACES = ("head", "all")


def penalized_weights(network: Network, place: str) -> dict[str, torch.nn.Parameter]:
    """The trainable weights, by name, without biases and norms (fewer than two dimensions): those
    of the last layer (``head``), or ``all``."""
    inside = {id(p) for p in network.head.parameters()} if place == "head" else None
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
        and parameter.ndim > 1
        and (inside is None or id(parameter) in inside)
    }


def penalty_parts(method: str, place: str, listener: Callable[[], Listener]) -> Parts:
    """The parts of a penalty on the weights of ``place``, applied by its ``listener``."""
    return Parts(
        listeners=lambda: (listener(),),
        prepares=lambda loaded: _announce_weights(method, place, loaded),
    )


def _announce_weights(method: str, place: str, loaded: LoadedModel) -> None:
    """Report which weights of this network a penalty acts on; raises ``RecipeError`` where there
    are none."""
    weights = penalized_weights(loaded.network, place)
    if not weights:
        raise RecipeError(
            f"methods.{method}.place",
            "names weights, none of which is trainable",
            place,
            f"Set methods.{method}.place=all, or make the head trainable (model.freeze, "
            "model.adapter).",
        )
    count = sum(parameter.numel() for parameter in weights.values())
    where = "of the last layer" if place == "head" else "of every trainable layer"
    because = f"the weights {where}, without biases and norms"
    notify(Decision(f"{method} acts on", f"{count:,} weights", because))


def weights_with_gradient(
    run: Run, weights: dict[str, torch.nn.Parameter]
) -> Iterator[tuple[str, Any]]:
    """The weights that this update changes by gradient: an action may have frozen some, and a phase
    may not train the head."""
    assert run.optimizer is not None
    stepped = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    for name, weight in weights.items():
        if weight.requires_grad and weight.grad is not None and id(weight) in stepped:
            yield name, weight


class SquaredWeights:
    """The listener that adds λw to the gradients."""

    name = "l2"
    place: Place = "change"

    def __init__(self, strength: float, where: str) -> None:
        self._strength, self._where = strength, where
        self._weights: dict[str, torch.nn.Parameter] = {}

    def run_start(self, run: Run) -> None:
        self._weights = penalized_weights(run.network, self._where)

    def backward_done(self, run: Run) -> None:
        for _, weight in weights_with_gradient(run, self._weights):
            weight.grad.add_(weight.detach(), alpha=self._strength)


@dataclass(frozen=True, slots=True)
class L2:
    """L2 as a term of the loss: the penalty's gradient goes through the optimizer (Krogh and Hertz
    1991).

        L(w) + λ/2 Σ w²,   so the gradient of an update is ∇L + λw

    ``strength`` is λ, in nats per squared unit of weight. With plain SGD this is weight decay of ηλ
    per update. With Adam it is not (1711.05101): λw is divided by the root of the gradient's mean
    square like the rest, so weights with large gradients are hardly pulled. ``train.weight_decay``
    of ``adamw`` is decoupled, w ← w − ηλw for all alike, and is neither clipped nor averaged over
    updates. ``place`` are the penalized weights: ``all`` or ``head``."""

    strength: float = setting(0.01, above=0)
    place: str = setting("all", choices=PLACES)


def _l2_parts(settings: L2) -> Parts:
    return penalty_parts(
        "l2", settings.place, lambda: SquaredWeights(settings.strength, settings.place)
    )


METHODS.add("l2", Method(L2, _l2_parts))


class StartPenalty:
    """The listener that adds α (w − w⁰) and βv to the gradients. It has no state: a run keeps its
    initial weights."""

    name = "l2_sp"
    place: Place = "change"

    def __init__(self, strength: float, head: float) -> None:
        self._strength, self._of_head = strength, head
        self._weights: dict[str, torch.nn.Parameter] = {}
        self._start: dict[str, torch.Tensor] = {}
        self._new: frozenset[str] = frozenset()

    def run_start(self, run: Run) -> None:
        self._weights, self._start = penalized_weights(run.network, "all"), {}
        self._new = frozenset(
            penalized_weights(run.network, "head") if run.network.new_head else ()
        )

    def backward_done(self, run: Run) -> None:
        for name, weight in weights_with_gradient(run, self._weights):
            if name in self._new:
                weight.grad.add_(weight.detach(), alpha=self._of_head)
                continue
            if name not in self._start:
                # The run's own copy, which is in CPU memory.
                self._start[name] = run.initial_tensors[name].to(weight.device)
            weight.grad.add_(weight.detach() - self._start[name], alpha=self._strength)


@dataclass(frozen=True, slots=True)
class L2Sp:
    """L2-SP: weights pulled to their values before fine-tuning, not to zero (1802.01483).

        L(w) + α/2 Σ (w − w⁰)² + β/2 Σ v²

    over the pretrained weights w, with initial values w⁰, and those of a new head v, whose initial
    values are not worth keeping (equation 4 of the paper). ``strength`` is α, ``head`` β, in nats
    per squared unit of weight; a head that is pretrained too (a language model's) belongs to w.
    Unlike ``train.weight_decay``, which pulls away from the pretrained weights, it preserves
    them."""

    strength: float = setting(0.01, above=0)
    head: float = setting(0.01, least=0)


def _l2_sp_parts(settings: L2Sp) -> Parts:
    return penalty_parts("l2_sp", "all", lambda: StartPenalty(settings.strength, settings.head))


METHODS.add("l2_sp", Method(L2Sp, _l2_sp_parts))


def shrink(weight: torch.Tensor, threshold: float, divisor: float = 1.0) -> None:
    """Set each w to sign(w) · max(|w| − ``threshold``, 0) ÷ ``divisor``, in place: the proximal
    step of threshold · |w| + (divisor − 1) · w² ÷ 2."""
    import torch

    with torch.no_grad():
        weight.copy_(torch.nn.functional.softshrink(weight, threshold))
        if divisor != 1.0:
            weight.div_(divisor)


class Proximal:
    """The listener of a penalty by proximal steps: ``absolute`` · |w| + ``square`` · w² ÷ 2 for
    each weight of ``place``. At the end it reports how many became zero."""

    place: Place = "change"

    def __init__(self, name: str, where: str, absolute: float, square: float = 0.0) -> None:
        self.name = name
        self._where, self._absolute, self._square = where, absolute, square
        self._weights: dict[str, torch.nn.Parameter] = {}

    def run_start(self, run: Run) -> None:
        self._weights = penalized_weights(run.network, self._where)

    def step_done(self, run: Run) -> None:
        assert run.optimizer is not None
        rates = {id(p): g["lr"] for g in run.optimizer.param_groups for p in g["params"]}
        for _, weight in weights_with_gradient(run, self._weights):
            rate = float(rates[id(weight)])
            shrink(weight, rate * self._absolute, 1 + rate * self._square)

    def run_end(self, run: Run) -> None:
        decision = zero_weights_decision(self.name, run.network, self._weights, run.best.step)
        run.job.journal.decide(run.step, decision)


def zero_weights_decision(
    method: str, network: Network, weights: dict[str, torch.nn.Parameter], step: int
) -> Decision:
    """How many of the weights are exactly zero, and how many features the head does not use, in the
    checkpoint of this ``step``."""
    total = sum(weight.numel() for weight in weights.values())
    zero = sum(int((weight == 0).sum()) for weight in weights.values())
    because = f"{zero:,} of {total:,} weights are exactly zero in the checkpoint of step {step}"
    head = getattr(network.head, "weight", None)
    if head is not None and head.ndim == 2 and any(head is one for one in weights.values()):
        unread = int((head == 0).all(dim=0).sum())
        share = unread / head.shape[1]
        because += f"; the head uses {head.shape[1] - unread:,} of {head.shape[1]:,} features, "
        because += f"{percent_phrase(share)} of them have no weight in any output"
    share_words = f"{percent_phrase(zero / max(1, total), 1)} of the weights are zero"
    return Decision(f"zero weights with {method}", share_words, because, prominent=True)


@dataclass(frozen=True, slots=True)
class L1:
    """L1: weights pulled to zero by the same amount whatever their size, so that many become
    exactly zero (lasso, Tibshirani 1996; proximal steps, 0912.3522).

        L(w) + λ Σ |w|,  after the optimizer's step with the rate η:  w ← sign(w) · max(|w| − ηλ, 0)

    ``strength`` is λ, in nats per unit of weight. With SGD the fixed point is that of the penalized
    loss. Adam's steps are about η whatever the gradient, so there λ is compared with 1, not with
    gradients: a weight whose mean gradient is below λ times its root mean square goes to zero, and
    from 1 on no gradient keeps any. Over a run a weight is pulled by at most λ times the sum of the
    rates, 0.015 λ for 300 updates that fall linearly from 1e-4: a head that begins as a linear
    probe gets few zeros in such a short run. Unlike L2, which makes weights small, it selects; with
    correlated features it keeps one of them, where the elastic net keeps both.

    ``place`` are the penalized weights: ``head`` (which features the last layer uses) or
    ``all``."""

    strength: float = setting(0.3, above=0)
    place: str = setting("head", choices=PLACES)


def _l1_parts(settings: L1) -> Parts:
    return penalty_parts(
        "l1", settings.place, lambda: Proximal("l1", settings.place, settings.strength)
    )


METHODS.add("l1", Method(L1, _l1_parts))


@dataclass(frozen=True, slots=True)
class ElasticNet:
    """Elastic net: L1 and L2 together, by proximal steps (Zou and Hastie 2005).

        L(w) + λ Σ ( ρ |w| + (1 − ρ) w² ÷ 2 ),   after the optimizer's step with the rate η:
        w ← sign(w) · max(|w| − ηλρ, 0) ÷ (1 + ηλ(1 − ρ))

    ``strength`` is λ, in nats per unit of weight, ``ratio`` ρ in (0, 1], as scikit-learn's
    ``alpha`` and ``l1_ratio``. Of equivalent features, lasso (ρ = 1) keeps an arbitrary one; the
    square shares the weight among them. Both parts are applied after the step, so an adaptive
    optimizer divides neither, unlike ``l2``. ``place`` are the penalized weights, as for L1.
    """

    strength: float = setting(0.3, above=0)
    ratio: float = setting(0.5, above=0, most=1)
    place: str = setting("head", choices=PLACES)


def _elastic_net_parts(settings: ElasticNet) -> Parts:
    absolute, square = settings.strength * settings.ratio, settings.strength * (1 - settings.ratio)
    return penalty_parts(
        "elastic_net",
        settings.place,
        lambda: Proximal("elastic_net", settings.place, absolute, square),
    )


METHODS.add("elastic_net", Method(ElasticNet, _elastic_net_parts))


@dataclass(frozen=True, slots=True)
class EWC:
    """Elastic weight consolidation: keep important weights near their initial values (1612.00796).

        the update's gradient += λ · F_i · (w_i − w₀_i)
        F_i = mean over general rows of (∂ℓ ÷ ∂w_i)²

    with w₀ before the first step and F the diagonal of the empirical Fisher information there, one
    row at a time, scaled to a mean of 1 over all trainable weights: λ then means the same for every
    model (with the paper's plain F it must be set again for each). The quadratic around the start
    stands for one earlier task. It is clipped with the gradient. ``l2_sp`` is the same with F = 1;
    ``replay`` and ``kl_start`` preserve predictions and leave the weights free, and are the methods
    to compare it with.

    F is computed from ``data.general`` (or from rows that a model generated itself, see
    ``replay``), at most ``rows`` of it, with the first update; again after a resume, since it
    depends only on the start.

    The settings: ``weight`` is λ, for a Fisher information with mean 1; ``rows`` the maximum number
    of general rows that it is computed from.
    """

    weight: float = setting(0.01, above=0, most=1e6)
    rows: int = setting(200, least=1, most=100_000)


def fisher(run: Run, rows: int) -> dict[str, torch.Tensor]:
    """The mean of the squared gradients of single general rows, at most ``rows`` of them, by
    parameter name; scaled to a mean of 1 over all of them. In evaluation mode, without dropout."""
    import torch

    job, trainable = run.job, run.trainable_parameters()
    examples = job.general_replay
    assert examples is not None
    sums = {name: torch.zeros_like(weight) for name, weight in trainable.items()}
    was_training = run.network.training
    # A layer that is not trained yet (unfreeze) or that an action froze is important too.
    fixed = [weight for weight in trainable.values() if not weight.requires_grad]
    for weight in fixed:
        weight.requires_grad_(True)
    run.network.eval()
    for place in range(min(rows, len(examples))):
        batch = device_batch(job.task, examples, np.array([place]), job.accelerator.device)
        with job.accelerator.autocast():
            loss = job.task.losses(job.task.forward(run.network, batch), batch).sum()
        gradients = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
        for name, gradient in zip(trainable, gradients, strict=True):
            if gradient is not None:
                sums[name].addcmul_(gradient, gradient)
    for weight in fixed:
        weight.requires_grad_(False)
    if was_training:
        train_mode(run.network)
    total = sum(float(each.sum()) for each in sums.values())
    mean = total / sum(each.numel() for each in sums.values())
    return {name: each / mean for name, each in sums.items()} if mean > 0 else sums


class ConsolidationPenalty:
    """The listener. It has no state: its data are a function of the start."""

    name: ClassVar[str] = "ewc"
    place: ClassVar[Place] = "change"

    def __init__(self, settings: EWC) -> None:
        self._settings = settings
        self.fisher: dict[str, torch.Tensor] = {}

    def backward_done(self, run: Run) -> None:
        if self.fisher.keys() != run.trainable_parameters().keys():
            with run.initial_weights():
                self.fisher = fisher(run, self._settings.rows)
        for name, weight in run.trainable_parameters().items():
            if weight.grad is not None:
                away = weight.detach() - run.initial_tensors[name].to(weight.device)
                weight.grad.addcmul_(self.fisher[name], away, value=self._settings.weight)


METHODS.add(
    "ewc",
    Method(
        EWC,
        lambda settings: Parts(listeners=lambda: (ConsolidationPenalty(settings),)),
        needs_general=True,
    ),
)
