"""What all penalties on weights share: which weights they pull, and soft thresholds.

A penalty R(w) with strength λ is taken in one of two ways. As a loss term, λ ∇R joins the gradient
before it is clipped (``backward_done``), and what the optimizer makes of gradients it makes of this
one too: Adam divides it by the root of its mean square, so a weight with large gradients is hardly
pulled. As a proximal step after the optimizer's (``step_done``), the weights are set to

    prox(w) = argmin_u  ½ ‖u − w‖² + η λ R(u)

with the group's present rate η, whatever the optimizer; that is how a weight becomes exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.events import Listener, Place
from holdfast.core.records import Decision
from holdfast.methods.registry import Parts

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Loaded, Network
    from holdfast.training.run import Run

PLACES = ("head", "all")


def pulled(network: Network, place: str) -> dict[str, torch.nn.Parameter]:
    """The weights that learn, by name, without biases and norms (fewer than two dimensions): those
    of the last layer (``head``), or ``all``."""
    inside = {id(p) for p in network.head.parameters()} if place == "head" else None
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
        and parameter.ndim > 1
        and (inside is None or id(parameter) in inside)
    }


def penalty(method: str, place: str, listener: Callable[[], Listener]) -> Parts:
    """The parts of a penalty that pulls the weights of ``place`` by its ``listener``."""
    return Parts(
        listeners=lambda: (listener(),), prepares=lambda loaded: _prepare(method, place, loaded)
    )


def _prepare(method: str, place: str, loaded: Loaded) -> None:
    """Notify of what a penalty pulls of this network; raises ``RecipeError`` where that is
    nothing."""
    weights = pulled(loaded.network, place)
    if not weights:
        raise RecipeError(
            f"methods.{method}.place",
            "names weights of which none learns",
            place,
            f"Set methods.{method}.place=all, or let the head learn (model.freeze, model.adapter).",
        )
    count = sum(parameter.numel() for parameter in weights.values())
    where = "of the last layer" if place == "head" else "of every layer that learns"
    because = f"the weights {where}, without biases and norms"
    notify(Decision(f"what {method} pulls", f"{count:,} weights", because))


def with_gradient(run: Run, weights: dict[str, torch.nn.Parameter]) -> Iterator[tuple[str, Any]]:
    """Those that this update changes by gradient: an action may have frozen some, and a phase
    may leave the head alone."""
    assert run.optimizer is not None
    stepped = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    for name, weight in weights.items():
        if weight.requires_grad and weight.grad is not None and id(weight) in stepped:
            yield name, weight


def shrink(weight: torch.Tensor, threshold: float, divisor: float = 1.0) -> None:
    """Set each w to sign(w) · max(|w| − ``threshold``, 0) ÷ ``divisor``, in place: the proximal
    step of threshold · |w| + (divisor − 1) · w² ÷ 2."""
    import torch

    with torch.no_grad():
        weight.copy_(torch.nn.functional.softshrink(weight, threshold))
        if divisor != 1.0:
            weight.div_(divisor)


class Proximal:
    """The listener of a penalty that is taken by proximal steps: ``absolute`` · |w| +
    ``square`` · w² ÷ 2 of each weight of ``place``. At the end it says what became zero."""

    place: Place = "change"

    def __init__(self, name: str, where: str, absolute: float, square: float = 0.0) -> None:
        self.name = name
        self._where, self._absolute, self._square = where, absolute, square
        self._weights: dict[str, torch.nn.Parameter] = {}

    def run_start(self, run: Run) -> None:
        self._weights = pulled(run.network, self._where)

    def step_done(self, run: Run) -> None:
        assert run.optimizer is not None
        rates = {id(p): g["lr"] for g in run.optimizer.param_groups for p in g["params"]}
        for _, weight in with_gradient(run, self._weights):
            rate = float(rates[id(weight)])
            shrink(weight, rate * self._absolute, 1 + rate * self._square)

    def run_end(self, run: Run) -> None:
        made = what_is_zero(self.name, run.network, self._weights, run.best.step)
        run.job.journal.note(run.step, made.what, made.because, chosen=made.chosen)
        notify(made)


def what_is_zero(
    method: str, network: Network, weights: dict[str, torch.nn.Parameter], step: int
) -> Decision:
    """How many of the weights are exactly zero, and how many features the head does not read, in
    the state of this ``step``."""
    total = sum(weight.numel() for weight in weights.values())
    zero = sum(int((weight == 0).sum()) for weight in weights.values())
    because = f"{zero:,} of {total:,} weights are exactly zero in the state of step {step}"
    head = getattr(network.head, "weight", None)
    if head is not None and head.ndim == 2 and any(head is one for one in weights.values()):
        unread = int((head == 0).all(dim=0).sum())
        share = unread / head.shape[1]
        because += f"; the head reads {head.shape[1] - unread:,} of {head.shape[1]:,} features, "
        because += f"{share:.0%} of them have no weight in any output"
    chosen = f"{zero / max(1, total):.1%} of the weights are zero"
    return Decision(f"what {method} left", chosen, because, prominent=True)
