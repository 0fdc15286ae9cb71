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

    first = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    here, best = torch.device("cpu") if first is None else first.device, best_device()
    few = here == best or rows < MIN_ROWS
    # Quantised layers stay where they were quantised.
    if few or not isinstance(network, torch.nn.Module) or is_quantized(network):
        yield here
        return
    network.to(best)
    try:
        yield best
    finally:
        network.to(here)
