"""What the last layer of a saved model reads: one vector a row, heard while it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from holdfast.models.encoders.families import FAMILIES
from holdfast.models.encoders.pooling import MARK, masked_mean


def last_layer(plain: nn.Module) -> nn.Module | None:
    """The layer of a plain classifier or tagger that reads its features; ``None`` where there is
    none to be found. Of a model that carries mean pooling it is the layer that reads the mean."""
    config: Any = plain.config
    family = FAMILIES.get(str(config.model_type))
    named: dict[str, nn.Module] = dict(_inner(plain).named_modules())
    if family is not None and getattr(config, MARK, False):
        return named.get(family.dense)
    if family is not None and family.last in named:
        return named[family.last]
    width = int(getattr(config, "num_labels", 0))
    linear = [one for one in named.values() if isinstance(one, nn.Linear)]
    return linear[-1] if linear and linear[-1].out_features == width else None


def _inner(plain: nn.Module) -> nn.Module:
    """The plain model inside PEFT's."""
    inner: Any = getattr(plain, "get_base_model", None)
    found: nn.Module = inner() if inner is not None else plain
    return found


@contextmanager
def hearing(plain: nn.Module, layer: nn.Module | None = None) -> Iterator[list[Tensor]]:
    """While this is open every pass through ``plain`` adds what its last layer read, [B, D]: of a
    tagger the mean over a row's real tokens. Nothing is added where there is no such layer; one
    that is not where a plain model has it is given."""
    layer, heard = layer or last_layer(plain), list[Tensor]()
    masks: list[Tensor | None] = []

    def begin(_: nn.Module, given: tuple[object, ...], named: dict[str, Tensor | None]) -> None:
        masks[:] = [named.get("attention_mask")]

    def read(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        states = given[0].detach().float()
        mask = masks[0] if masks else None
        if states.dim() == 3:
            # A learnt prompt stands before the real tokens.
            length = states.shape[1] if mask is None else mask.shape[1]
            states = masked_mean(states[:, -length:], mask)
        heard.append(states.flatten(1))

    hooks = [plain.register_forward_pre_hook(begin, with_kwargs=True)]
    if layer is not None:
        hooks.append(layer.register_forward_pre_hook(read))
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
