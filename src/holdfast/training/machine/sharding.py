"""A network that is spread over processes: each holds a part of every weight, its gradient and its
optimizer's state (ZeRO, 1910.02054; PyTorch's ``fully_shard``, called FSDP2, 2304.11277).

The weights of a block are gathered just before it computes and let go after it. Gradients come back
summed over all processes, each with its own part, so nothing of ours adds them up. What the loop
copies (the weights at a look, the best state, a checkpoint) are parts too: nowhere is the whole.

All processes must pass as many batches as each other, since each pass gathers: one that has no rows
left passes some again, and nothing comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


T = TypeVar("T")
# Methods of our networks, beside ``forward``, that compute with all weights.
PASSES = ("logits_at", "losses_at")


def shard(network: Any, accelerator: Accelerator, precision: str, *, reshard: bool = True) -> None:
    """Spread ``network`` over all processes, in place: block by block, then what is around them.

    ``precision`` is that of the pass; gradients are summed in float32 whatever it is. With
    ``reshard`` the weights of a block are let go after its forward pass and gathered again for the
    backward one; without it they stay, for speed.
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
    # The last layer is used by the network's own methods alone, within a pass.
    fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    for name in PASSES:
        if hasattr(network, name):
            register_fsdp_forward_method(network, name)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            # Sums, as of an update's rows; its own mean would be that over processes.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def blocks_of(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that are gathered one at a time: those that Transformers never splits."""
    names = set(getattr(network.plain, "_no_split_modules", None) or ())
    return [module for module in network.modules() if type(module).__name__ in names]


def is_sharded(network: object) -> bool:
    """Whether ``shard`` has spread it."""
    # A run of one process must not load what several need.
    return hasattr(network, "set_force_sum_reduction_for_comms")


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a spread tensor, sharing its memory; any other as it is."""
    part: Any = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def gather_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A spread tensor whole, on every process; any other as it is."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def gather_tensors(tensors: Mapping[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Each tensor gathered from its parts, in the processor's memory, where ``keep``; one at a
    time, so that no device holds them all. Every process must ask for the same."""
    tensors_whole: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        value = gather_tensor(tensor)
        if keep:
            tensors_whole[name] = value.detach().cpu().clone()
    return tensors_whole


def sum_over_processes(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """These numbers added up over all processes, in float64."""
    table = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    total: torch.Tensor = accelerator.reduce(table, reduction="sum")
    return [float(value) for value in total]


def gather_objects(here: list[T], world: int) -> list[T]:
    """What each of ``world`` processes has, one after the other."""
    if world == 1:
        return here
    from accelerate.utils import gather_object

    everyone: list[T] = gather_object(here)
    return everyone


def local_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state with this process's parts in the place of spread tensors."""
    local_states = {
        number: {key: local_part(v) if torch.is_tensor(v) else v for key, v in one.items()}
        for number, one in state["state"].items()
    }
    return {**state, "state": local_states}


def spread_state(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer that was loaded with ``parts_of`` a state spread as its weights are."""
    from torch.distributed.tensor import DTensor

    for parameter, state in optimizer.state.items():
        if not isinstance(parameter, DTensor):
            continue
        shape = local_part(parameter.detach()).shape
        for key, value in state.items():
            # A count of steps is of the whole.
            if torch.is_tensor(value) and value.ndim and value.shape == shape:
                state[key] = DTensor.from_local(
                    value,
                    parameter.device_mesh,
                    parameter.placements,
                    run_check=False,
                    shape=parameter.shape,
                    stride=parameter.stride(),
                )
