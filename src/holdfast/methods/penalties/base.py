"""What all penalties on weights share: which weights they pull, and when.

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
from holdfast.core.events import Listener
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
