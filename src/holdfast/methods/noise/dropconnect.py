"""DropConnect: single connections are dropped instead of units (Wan et al. 2013).

    y = (W ⊙ M ÷ (1 − p)) x + b,   M ~ Bernoulli(1 − p) per weight, drawn for each pass

in the linear layers of the blocks that learn. ``rate`` is p. The paper draws a mask for each row;
here the rows of a pass share one, as anything else would hold the weights once a row. Off by
default: no gain on tuned transformers is known, and a mask of every weight costs up to a third of a
step. Dropout (``methods/noise/dropout.py``) drops units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.methods.noise.hooks import Disturbance
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch
    from torch import nn

    from holdfast.models.base import Loaded, Network


def layers_of(network: Network) -> list[nn.Linear]:
    """The linear layers in the blocks whose weights learn."""
    from torch import nn

    from holdfast.models.places import blocks_of

    modules = (module for block in blocks_of(network) for module in block.modules())
    return [one for one in modules if isinstance(one, nn.Linear) and one.weight.requires_grad]


@dataclass(frozen=True, slots=True)
class DropConnect:
    """``rate`` is p, the share of the connections that a pass leaves out."""

    rate: float = setting(0.1, above=0, most=0.95)

    def attach(self, network: Network) -> Sequence[Callable[[], None]]:
        """A pass of its own in each of the layers."""
        return [self._attached(layer) for layer in layers_of(network)]

    def _attached(self, layer: nn.Linear) -> Callable[[], None]:
        import torch

        plain = layer.forward

        def forward(states: torch.Tensor) -> Any:
            if not layer.training:
                return plain(states)
            weight = torch.nn.functional.dropout(layer.weight, self.rate)
            return torch.nn.functional.linear(states, weight, layer.bias)

        layer.__dict__["forward"] = forward

        def remove() -> None:
            del layer.__dict__["forward"]

        return remove


def _prepares(loaded: Loaded) -> None:
    layers = layers_of(loaded.network)
    if not layers:
        rule = "needs a linear layer in a block that learns"
        remedy = "Leave it out, or freeze less (model.freeze, model.adapter)."
        raise RecipeError("methods.dropconnect", rule, None, remedy)
    count = sum(layer.weight.numel() for layer in layers)
    because = f"{count:,} connections, of which each pass of an update leaves some out"
    notify(Decision("where dropconnect acts", f"{len(layers)} linear layers", because))


def _parts(asked: DropConnect) -> Parts:
    return Parts(listeners=lambda: (Disturbance("dropconnect", asked.attach),), prepares=_prepares)


METHODS.add("dropconnect", Method(DropConnect, _parts))
