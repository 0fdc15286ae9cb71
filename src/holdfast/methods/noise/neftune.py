"""NEFTune: noise on the word embeddings while the network learns (2310.05914).

    x' = x + α ÷ √(L d) · ε,   ε ~ U(−1, 1) per unit

for a row of L real tokens with embeddings of d units; padding counts for nothing and stays as it
is. ``alpha`` is α: 5, 10 or 15 in the paper. The noise of a row is about α ÷ √3 long as a whole,
however long the row is. Made for language models that follow instructions, it suits anything with
a table of words. With packed rows (``train.pack``) L is that of the line. ``methods/noise/hype.py``
disturbs the states between the blocks instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.methods.noise.hooks import Disturbance, tables_for, tell_where
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch
    from torch import nn

    from holdfast.models.base import Loaded, Network


def real_tokens(ids: torch.Tensor, padding: int | None) -> torch.Tensor:
    """Which places of ``ids`` [batch, length] hold a token [batch, length]: those up to the last
    one that is not ``padding``, since padding stands on the right."""
    import torch

    if padding is None:
        return torch.ones_like(ids, dtype=torch.bool)
    is_token = ids != padding
    return is_token.flip(1).cumsum(dim=1).flip(1) > 0


def noise(states: torch.Tensor, real: torch.Tensor, alpha: float) -> torch.Tensor:
    """The noise for embeddings ``states`` [batch, length, units], where ``real`` [batch, length]
    says which tokens count."""
    import torch

    lengths = real.sum(dim=1).clamp(min=1)
    scale = alpha / torch.sqrt(lengths * states.shape[-1]).to(states.dtype)
    drawn = torch.rand_like(states) * 2 - 1
    return drawn * (scale[:, None] * real.to(states.dtype))[..., None]


@dataclass(frozen=True, slots=True)
class Neftune:
    """``alpha`` is α."""

    alpha: float = setting(5.0, above=0, most=1000)

    def attach(self, network: Network, padding: int | None) -> Sequence[Callable[[], None]]:
        """A hook on the table of words."""
        from holdfast.models.places import word_tables

        def after(table: nn.Module, given: tuple[torch.Tensor], states: torch.Tensor) -> Any:
            if not table.training:
                return None
            ids = given[0].reshape(-1, given[0].shape[-1])
            flat = states.reshape(*ids.shape, states.shape[-1])
            return (flat + noise(flat, real_tokens(ids, padding), self.alpha)).view_as(states)

        return [one.register_forward_hook(after).remove for one in word_tables(network)]


def _prepares(loaded: Loaded) -> None:
    tables = tables_for("neftune", loaded.network)
    size = int(tables[0].weight.shape[1])
    because = f"of {size} units a token; in updates alone"
    tell_where("neftune", loaded.network, tables, "the word embeddings", because)


def _parts(asked: Neftune) -> Parts:
    def listeners(loaded: Loaded) -> tuple[Disturbance]:
        padding = loaded.tokenizer.pad_token_id
        return (Disturbance("neftune", lambda network: asked.attach(network, padding)),)

    return Parts(listeners_for=listeners, prepares=_prepares)


METHODS.add("neftune", Method(Neftune, _parts))
