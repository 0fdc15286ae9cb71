"""A copy of a network that shares its weights: the starting point of each fit.

A fit changes more than weights: which parameters are trained, attention, activation checkpointing,
dropout, the mode, the device. So a fit works on a copy of every module, and a loaded module is
never changed. The weights are shared until they are trained: a frozen backbone is in memory once,
however many fits there are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from holdfast.models.adapters.quantize import quantized_layers
from holdfast.models.base import Weights

N = TypeVar("N", bound=Weights)


def copy_network(network: N, tensors: Mapping[str, Tensor] = MappingProxyType({})) -> N:
    """A copy of ``network`` whose parameters share its memory, except those in ``tensors`` by name;
    buffers are copied. Call ``detach_trainable`` before training."""
    memo: dict[int, Any] = {}
    for _, layer in quantized_layers(network):
        # Nothing of it ever learns, and it holds its levels in more places than one.
        memo[id(layer)] = layer
    for parameter in network.parameters():
        if type(parameter) is nn.Parameter:
            # .data and not .detach(): a copy counts its own changes.
            memo[id(parameter)] = nn.Parameter(parameter.data, parameter.requires_grad)
        else:
            memo[id(parameter)] = parameter
    numbers = {old: id(memo[old]) for old in map(id, network.parameters())}
    copied = copy.deepcopy(network, memo)
    renumber(copied, numbers)
    by_name = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    with torch.no_grad():
        for name, tensor in tensors.items():
            by_name[name].data = tensor.detach()
    return copied


def detach_trainable(network: Weights, shared: Weights) -> None:
    """Give the trained parameters of ``network``, a copy of ``shared`` by ``copy_network``, their
    own memory."""
    shared_pointers = {parameter.data_ptr() for parameter in shared.parameters()}
    for parameter in network.parameters():
        # On another device it has its own already.
        if parameter.requires_grad and parameter.data_ptr() in shared_pointers:
            parameter.data = parameter.data.clone()


def tensors_of(network: Weights) -> dict[str, Tensor]:
    """Parameters and buffers by name, without copying."""
    by_name = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor.detach() for name, tensor in by_name.items()}


def same_memory(copies: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``copies``, with the tensor of ``known`` wherever it is equal, so that it is in memory
    once."""
    return {
        name: known[name] if name in known and torch.equal(known[name], tensor) else tensor
        for name, tensor in copies.items()
    }


def renumber(network: Any, numbers: Mapping[int, int]) -> None:
    """An adapter, and a network with fixed tables, know parameters by their ``id``: give them those
    that ``numbers`` has for each."""

    def moved(old_ids: frozenset[int]) -> frozenset[int]:
        return frozenset(numbers.get(number, number) for number in old_ids)

    if (adapter := getattr(network, "adapter", None)) is not None:
        network.adapter = replace(
            adapter, frozen_ids=moved(adapter.frozen_ids), fast_ids=moved(adapter.fast_ids)
        )
    if getattr(network, "fixed", None):
        network.fixed = moved(network.fixed)
