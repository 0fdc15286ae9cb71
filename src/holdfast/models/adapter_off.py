"""A model with an adapter, as it is without it: the model that it began from, held in memory
once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


def has_switch(plain: Any) -> bool:
    """Whether PEFT's layers are in the model, which can be switched off. One whose adapter was
    merged into its weights has none."""
    return any(True for _ in _layers(plain))


def below_prompt(plain: Any) -> Any | None:
    """The model that a learnt prompt stands before; ``None`` where there is no such prompt."""
    learnt = getattr(plain, "active_peft_config", None)
    return plain.get_base_model() if learnt and learnt.is_prompt_learning else None


@contextlib.contextmanager
def adapter_off(plain: Any) -> Iterator[None]:
    """Switch the adapter's layers off for the length of the block."""
    layers = list(_layers(plain))
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _layers(plain: Any) -> Iterator[Any]:
    from importlib.util import find_spec

    if find_spec("peft") is None:
        return
    from holdfast.models.adapter import layers_with_adapter

    yield from (layer for _, layer in layers_with_adapter(plain))
