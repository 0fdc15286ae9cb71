"""HyPe: noise on the hidden states between the blocks while the network learns (2212.08853).

    h_l = f_l(h_{l−1} + ε),   ε ~ U(−σ, σ) or N(0, σ²) per unit

at the input of every block (the paper's equations 2 and 3). ``scale`` is σ, in the unit of the
hidden states; the paper takes 1e-5. On few rows it gained most there, and halved the spread between
seeds. Unlike NEFTune (``methods/noise/neftune.py``), which disturbs the words alone and a thousand
times as much, it disturbs every layer a little; unlike dropout it removes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import RecipeError
from holdfast.methods.noise.hooks import Disturbance, tell_where
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch
    from torch import nn

    from holdfast.models.base import Loaded, Network

NOISES = ("uniform", "normal")


@dataclass(frozen=True, slots=True)
class HyPe:
    """``scale`` is σ; ``noise`` its shape: ``uniform`` in (−σ, σ), or ``normal``."""

    scale: float = setting(1e-5, above=0, most=10)
    noise: str = setting("uniform", words=NOISES)

    def disturbed(self, states: torch.Tensor) -> Any:
        """The hidden states with noise of their shape and kind added."""
        import torch

        if self.noise == "normal":
            return states + self.scale * torch.randn_like(states)
        return states + (2 * self.scale) * (torch.rand_like(states) - 0.5)

    def attach(self, network: Network) -> Sequence[Callable[[], None]]:
        """A hook on every block."""
        from holdfast.models.places import blocks_of

        def before(
            block: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
        ) -> Any:
            if not block.training:
                return None
            if given:
                return (self.disturbed(given[0]), *given[1:]), named
            return given, {**named, "hidden_states": self.disturbed(named["hidden_states"])}

        blocks = blocks_of(network)
        return [b.register_forward_pre_hook(before, with_kwargs=True).remove for b in blocks]


def _prepares(loaded: Loaded) -> None:
    from holdfast.models.places import blocks_of

    blocks = blocks_of(loaded.network)
    if not blocks:
        rule = "needs a network with blocks, between which it adds noise"
        raise RecipeError("methods.hype", rule, type(loaded.network).__name__, "Leave it out.")
    because = "noise on the input of each, in updates alone"
    tell_where("hype", loaded.network, blocks, f"{len(blocks)} blocks", because)


def _parts(asked: HyPe) -> Parts:
    return Parts(listeners=lambda: (Disturbance("hype", asked.attach),), prepares=_prepares)


METHODS.add("hype", Method(HyPe, _parts))
