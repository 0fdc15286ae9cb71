"""Sharding: each process holds a shard of every weight, its gradient and its optimizer state
(ZeRO, 1910.02054; PyTorch's ``fully_shard``, called FSDP2, 2304.11277).

The weights of a block are gathered just before it computes and freed after it. Gradients arrive
summed over all processes, as shards, so our code must not add them up. Copies that the loop makes
(the weights of an evaluation, the best checkpoint, a resume checkpoint) are shards too: the full
weights exist nowhere.

All processes must make the same number of passes, since each pass gathers weights. A process that
has no rows left passes some again, without effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


T = TypeVar("T")
# Methods of our networks, other than ``forward``, that compute with all weights.
PASSES = ("logits_at", "losses_at")


def shard(network: Any, accelerator: Accelerator, precision: str, *, reshard: bool = True) -> None:
    """Shard ``network`` over all processes, in place: block by block, then the remaining layers.

    ``precision`` is that of the pass; gradients are always summed in float32. With ``reshard`` the
    weights of a block are freed after its forward pass and gathered again for the backward pass;
    without it they stay, for speed.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    half = torch.bfloat16 if precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    for module in blocks_of(network):
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    # Only the network's own methods use the last layer, within a pass.
    fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    for name in PASSES:
        if hasattr(network, name):
            register_fsdp_forward_method(network, name)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            # Sum, like an update over its rows; its default is the mean over processes.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def blocks_of(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that are gathered one at a time: those that Transformers never splits."""
    names = set(getattr(network.plain, "_no_split_modules", None) or ())
    return [module for module in network.modules() if type(module).__name__ in names]


def is_sharded(network: object) -> bool:
    """Whether ``shard`` has sharded it."""
    # A run of one process must not load what several need.
    return hasattr(network, "set_force_sum_reduction_for_comms")


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a sharded tensor, sharing its memory; any other unchanged."""
    part: Any = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def gather_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a sharded one, on every process; any other unchanged."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def gather_tensors(tensors: Mapping[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Each tensor gathered from its shards, in CPU memory, where ``keep``; one at a time, so that
    no device holds them all. Every process must call it with the same tensors."""
    tensors_whole: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        value = gather_tensor(tensor)
        if keep:
            tensors_whole[name] = value.detach().cpu().clone()
    return tensors_whole


def sum_over_processes(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """The sums of these numbers over all processes, in float64."""
    table = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    total: torch.Tensor = accelerator.reduce(table, reduction="sum")
    return [float(value) for value in total]


def gather_objects(here: list[T], world: int) -> list[T]:
    """The objects of each of ``world`` processes, in their order."""
    if world == 1:
        return here
    from accelerate.utils import gather_object

    everyone: list[T] = gather_object(here)
    return everyone


def local_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state with this process's shards in place of sharded tensors."""
    local_states = {
        number: {key: local_part(v) if torch.is_tensor(v) else v for key, v in one.items()}
        for number, one in state["state"].items()
    }
    return {**state, "state": local_states}


def spread_state(optimizer: torch.optim.Optimizer) -> None:
    """Shard the state of an optimizer loaded with ``local_state`` like its weights."""
    from torch.distributed.tensor import DTensor

    for parameter, state in optimizer.state.items():
        if not isinstance(parameter, DTensor):
            continue
        shape = local_part(parameter.detach()).shape
        for key, value in state.items():
            # A count of steps is not sharded.
            if torch.is_tensor(value) and value.ndim and value.shape == shape:
                state[key] = DTensor.from_local(
                    value,
                    parameter.device_mesh,
                    parameter.placements,
                    run_check=False,
                    shape=parameter.shape,
                    stride=parameter.stride(),
                )
