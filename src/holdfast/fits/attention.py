"""Which of the equal ways to compute attention is the quicker one here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.core.records import Decision
from holdfast.models.generators.causal import CausalNetwork

if TYPE_CHECKING:
    from holdfast.models.base import Network
    from holdfast.training.task import Examples


SHORT_TOKENS = 256


def choose_attention(network: Any, train: Examples, packed: bool) -> tuple[Decision, ...]:
    """On a processor the fused attention has a slow backward pass for short rows, and none at all
    where a bias of its scores learns: it then takes a slower way to what plain attention does. A
    decoder that needs no mask keeps it: it is as fast, and keeps no scores in memory."""
    import torch

    learns, unmasked = _learns_positions(network), isinstance(network, CausalNetwork) and not packed
    short = int(train.lengths.max()) <= SHORT_TOKENS and not unmasked
    if torch.cuda.is_available() or not (learns or short):
        return ()
    if not getattr(network.backbone, "_supports_sdpa", True):
        return ()
    try:
        network.backbone.set_attn_implementation("eager")
    except (ValueError, AttributeError):
        return ()
    where = "where relative positions learn" if learns else "for short rows"
    because = f"plain attention trains faster than the fused one on a processor {where}"
    return (Decision("attention", "eager", because),)


def _learns_positions(network: Network) -> bool:
    """Whether a bias of the attention's scores learns, as T5's relative positions do."""
    return any(
        parameter.requires_grad and "relative_attention_bias" in name
        for name, parameter in network.named_parameters()
    )
