"""The linear layer that a classifier is given in the place of the pretrained last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from holdfast.core.seeds import derive_seed

if TYPE_CHECKING:
    from holdfast.models.base import Network

# As BERT and ViT draw new weights (``initializer_range``).
HEAD_STD = 0.02


def new_head(features: int, outputs: int, seed: int) -> nn.Linear:
    """A linear layer [outputs, features] as ``reset_head`` draws it."""
    # skip_init leaves the global generator as it is: a run's other draws do not depend on the
    # number of classes.
    make: Any = nn.utils.skip_init
    head: nn.Linear = make(nn.Linear, features, outputs)
    reset_head(head, seed)
    return head


def put_head_back(
    network: Network,
    learning: Mapping[str, nn.Parameter],
    start: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer | None,
) -> bool:
    """Give those parameters of ``network.head`` that are ``learning`` (by name) the values that
    ``start`` has of them, and let ``optimizer`` forget what it has gathered of them, moments and
    counts. Whether there were any."""
    head = {id(parameter) for parameter in network.head.parameters()}
    mine = {name: p for name, p in learning.items() if id(p) in head}
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(start[name])
            if optimizer is not None:
                optimizer.state.pop(parameter, None)
    return bool(mine)


def reset_head(head: nn.Linear, seed: int) -> None:
    """Draw the layer anew, in place: weights normal with deviation 0.02, bias zero."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "head"))
    drawn = torch.randn(head.weight.shape, generator=generator) * HEAD_STD
    with torch.no_grad():
        head.weight.copy_(drawn)
        head.bias.zero_()
