"""Gradient checkpointing: inside a block nothing is kept, and the backward pass computes it again.

The gradient is the same; a step takes about a third longer and keeps one block's activations
instead of all (Chen and others 2016, 1604.06174).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.core.errors import ModelError
from holdfast.core.records import Decision
from holdfast.models.base import Weights

if TYPE_CHECKING:
    from torch import nn

SETTING = "train.checkpoint_activations"


def checkpoint_activations(network: Weights, wanted: bool) -> tuple[Decision, ...]:
    """Switch it on in the network's Transformers model, if ``wanted``.

    Dropout draws the same again in the second pass. Evaluation is not touched.

    Raises
    ------
    ModelError : the architecture does not offer it.
    """
    if not wanted:
        return ()
    model: Any = next((m for m in network.modules() if can_checkpoint(m)), None)
    if model is None:
        raise ModelError(
            SETTING,
            "is not offered by this architecture",
            type(network).__name__,
            "Leave it out, and double train.accumulate instead.",
        )
    if getattr(model.config, "use_cache", False):
        # Keys and values kept for generation cannot be computed again block by block.
        model.config.use_cache = False
    switch(model, on=True)
    because = "set by you: each block is computed twice, and only its input is kept"
    return (Decision(SETTING, "true", because),)


def switch(model: nn.Module, on: bool) -> None:
    """Switch it, under the method's old name and its new one (Transformers 5.20 and later)."""
    new = hasattr(model, "activation_checkpointing_enable")
    name = f"{'activation' if new else 'gradient'}_checkpointing_{'enable' if on else 'disable'}"
    # The older way needs an input that asks for a gradient, which frozen embeddings give none.
    settings = {"use_reentrant": False}
    key = f"{'activation' if new else 'gradient'}_checkpointing_kwargs"
    getattr(model, name)(**({key: settings} if on else {}))


def can_checkpoint(module: object) -> bool:
    """Whether this is a Transformers model that offers it."""
    return bool(getattr(module, "supports_gradient_checkpointing", False)) and hasattr(
        module, "gradient_checkpointing_enable"
    )
