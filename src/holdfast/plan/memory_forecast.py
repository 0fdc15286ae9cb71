"""The memory of a run of a model that is not loaded, from its ``config.json`` only.

Model and adapter are built on PyTorch's ``meta`` device, where tensors have shapes but no values.
Weights are counted as they would be stored, and activations are measured in a pass, not estimated
by a formula. 1 MB is 10⁶ bytes. A GPU's additional memory (its context, fragmentation of the
allocator) is ``OVERHEAD_MB``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.fit import MemoryEstimate
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RecipeError
from holdfast.core.machine import MB
from holdfast.models.adapters.adapter import attach
from holdfast.models.adapters.quantize import BYTES, quantizable
from holdfast.models.base import AdapterSpec
from holdfast.models.compute.processor import switch_checkpointing
from holdfast.models.generators.causal import CausalNetwork
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.plan.chunks import logits_mb
from holdfast.plan.memory import OPTIMIZER_STATES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    from holdfast.models.base import Network


# A CUDA context and the fragmentation of the allocator.
OVERHEAD_MB = 900.0


@dataclass(frozen=True, slots=True)
class LargeRun:
    """A run to forecast, with ``rows`` at once on each of ``devices``, each of ``tokens``, of which
    ``targets`` are trained on (all by default).

    ``bits``: 4 or 8 for the linear layers, 16 or 32 for all weights. Below 32 an adapter of
    ``rank`` is trained in float32, and also where ``rank`` is given. ``optimizer`` is one of
    ``methods/optimizers.py``. With ``checkpoints`` only the activations between blocks are kept.
    """

    rows: int = 1
    tokens: int = 512
    targets: int | None = None
    bits: int = 32
    rank: int | None = None
    optimizer: str = "adamw"
    checkpoints: bool = True
    chunked: bool = True
    devices: int = 1
    pass_bits: int = 16


def foretell(config: PreTrainedConfig | Path | str, plan: LargeRun) -> MemoryEstimate:
    """The peak memory of one device in a run of a causal language model: ``config`` is that of
    Transformers, or the folder of its ``config.json``.

    On several devices weights, gradients and optimizer state are sharded (ZeRO's third stage), and
    one block at a time is gathered. Raises ``RecipeError`` where the plan contradicts itself.
    """
    if plan.bits < 32 and plan.rank is None:
        rule = "applies to frozen weights, so an adapter must be trained"
        raise RecipeError("bits", rule, plan.bits, "Give the rank of an adapter.")
    if plan.devices > 1 and plan.bits < 16:
        rule = "cannot be used on several devices: weights of 4 or 8 bits cannot be sharded"
        raise RecipeError("bits", rule, plan.bits, "Use 16 bits, or one device.")
    network = _network(config, plan)
    frozen, learning = _weights_mb(network, plan)
    block = _block_mb(network, plan)
    weights, share = frozen + learning, 1 / plan.devices
    gathered = block if plan.devices > 1 else 0.0
    activations = plan.rows * _row_mb(network, plan)
    targets = plan.rows * (plan.targets or plan.tokens)
    logits = logits_mb(int(network.config.vocab_size), targets, plan.chunked)
    return MemoryEstimate(
        weights=weights * share + gathered,
        gradients=learning * share + (0.0 if plan.rank or plan.devices == 1 else gathered),
        optimizer=OPTIMIZER_STATES.get(plan.optimizer, 2) * learning * share,
        activations=activations + logits,
        copies=0.0,
        rest=OVERHEAD_MB,
    )


def _network(config: Any, plan: LargeRun) -> CausalNetwork:
    """The network with its adapter, without values."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(config, (str, Path)):
        config = AutoConfig.from_pretrained(config, trust_remote_code=False)
    config._attn_implementation = "sdpa"
    dtype = torch.bfloat16 if plan.pass_bits == 16 else torch.float32
    with torch.device("meta"), quiet_transformers():
        make: Any = AutoModelForCausalLM
        plain = make.from_config(config, dtype=dtype)
        network = UnloadedNetwork(plain)
        if plan.rank is not None:
            with decisions_to(None):
                attach(network, AdapterSpec("lora", rank=plan.rank), base="foretold")
    if plan.checkpoints:
        switch_checkpointing(plain, True)
    return network


class UnloadedNetwork(CausalNetwork):
    """A network whose weights have no values, so that no pass may depend on them."""

    def __init__(self, plain: PreTrainedModel) -> None:
        import torch

        torch.nn.Module.__init__(self)
        self.plain, self.direct = plain, True


def _weights_mb(network: CausalNetwork, plan: LargeRun) -> tuple[float, float]:
    """MB of the frozen weights as they are stored, and of the trained weights in float32."""
    packed = {id(weight) for weight in quantizable(network.plain)} if plan.bits < 16 else set()
    frozen = learning = 0.0
    for parameter in network.parameters():
        if parameter.requires_grad:
            learning += 4 * parameter.numel()
        elif id(parameter) in packed:
            frozen += BYTES[plan.bits] * parameter.numel()
        else:
            # With quantised layers, embeddings and norms stay float32.
            frozen += (2 if plan.bits == 16 else 4) * parameter.numel()
    return frozen / MB, learning / MB


def _block_mb(network: CausalNetwork, plan: LargeRun) -> float:
    """The largest layer as it is gathered for a pass, and the next one, which is prefetched."""
    each = sorted(
        (sum(p.numel() for p in layer.parameters()) for layer in network.layers()), reverse=True
    )
    return 2 * (plan.pass_bits / 8) * each[0] / MB


def _row_mb(network: CausalNetwork, plan: LargeRun) -> float:
    """MB that autograd keeps for one row, and for one block while it is recomputed."""
    import torch

    inputs = {
        "input_ids": torch.zeros(1, plan.tokens, dtype=torch.long, device="meta"),
        # With a ready mask, the model does not read its values.
        "attention_mask": torch.ones(
            1, 1, plan.tokens, plan.tokens, dtype=torch.bool, device="meta"
        ),
    }
    network.train()
    saved, block = AutogradBytes(network, plan.tokens), AutogradBytes(network, plan.tokens)
    with saved.counting():
        network.plain.base_model(**inputs, use_cache=False)
    if not plan.checkpoints:
        return saved.mb
    switch_checkpointing(network.plain, False)
    with block.counting():
        network.plain.base_model(**inputs, use_cache=False)
    blocks = max(1, int(network.config.num_hidden_layers))
    return saved.mb + block.mb / blocks


class AutogradBytes:
    """The bytes that autograd keeps inside ``counting``: each storage once, without weights."""

    def __init__(self, network: Network, tokens: int) -> None:
        self._tokens = tokens
        self._weights = {p.untyped_storage()._cdata for p in network.parameters()}
        self._storages: dict[int, Any] = {}

    @property
    def mb(self) -> float:
        return float(sum(storage.nbytes() for storage in self._storages.values()) / MB)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        import torch

        def record_tensor(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            # Memory-efficient attention never stores these.
            square = tensor.ndim > 2 and tensor.shape[-2:] == (self._tokens, self._tokens)
            if storage._cdata not in self._weights and not square:
                # Kept alive, so that no other storage gets its address.
                self._storages[storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record_tensor, lambda tensor: tensor):
            yield
