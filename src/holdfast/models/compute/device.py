"""Where a finished model computes: on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Fewer rows than this a processor has done before the weights are on a GPU and back.
MIN_ROWS = 32


def best_device() -> torch.device:
    """A GPU where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def on_best_device(network: Callable[..., Any], rows: int) -> Iterator[torch.device]:
    """The device on which ``network`` computes ``rows`` rows inside the block, and to which their
    tensors must be moved. For many rows a network is moved to a GPU, and back: whoever else holds
    it finds it where it was."""
    import torch

    from holdfast.models.adapters.quantize import is_quantized

    weights: Any = network if isinstance(network, torch.nn.Module) else None
    first = None if weights is None else next(weights.parameters(), None)
    here, best = torch.device("cpu") if first is None else first.device, best_device()
    # Quantised layers stay where they were quantised.
    if first is None or here == best or rows < MIN_ROWS or is_quantized(weights):
        yield here
        return
    _move(network, best)
    try:
        yield best
    finally:
        _move(network, here)


def _move(network: Any, device: torch.device) -> None:
    """Move it; weights that are moved in inference mode could have no gradient ever after."""
    import torch

    with torch.inference_mode(False):
        network.to(device)
