"""Will it fit? An estimate of the memory of a run before its first step, and what would help.

Weights, gradients and the optimizer's state are counted; activations are measured, as the bytes
that autograd keeps of one forward pass of the longest rows. Weights as they are held (float32, or
quantised with their scales); 10⁶ bytes are a MB.

What memory is there for a run, and whose limit it is.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.fit import Need
from holdfast.core.errors import MachineError
from holdfast.core.machine import MB, Limit, file_pages_mb, memory_limits
from holdfast.core.records import Decision, Finding
from holdfast.models.adapters.quantize import BYTES, is_quantized, quantizable, weight_bytes
from holdfast.models.adapters.quantize import SETTING as QUANTIZE
from holdfast.models.compute.processor import can_checkpoint, switch_checkpointing
from holdfast.training.machine.machine import autocast
from holdfast.training.plan import Phase
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Network
    from holdfast.training.task import Examples, Task


LONG = 1024
# Copies of what learns, in the processor's memory: at the start, at the last look, of the best.
COPIES = 3
STATES = {"adamw": 2, "adam": 2, "rmsprop": 1, "sgd": 1, "paged_adamw8bit": 0.51}
LORA_SHARE, HALF = 0.02, 0.55
# Beyond this the estimate is not wrong by accident; below it the run may be tried.
CLEARLY = 1.25


@dataclass(frozen=True, slots=True)
class Reduction:
    """Something that makes a run smaller: its ``--set`` strings, and the need with it."""

    settings: tuple[str, ...]
    apply: Callable[[Need], Need]


def check_fit(
    network: Network,
    task: Task,
    examples: Examples,
    phases: tuple[Phase, ...],
    precision: str,
    shards: int = 1,
) -> tuple[Need, Decision, tuple[Finding, ...]]:
    """The estimate, printed; a warning where it is above what is there. Of a
    network in ``shards`` it is that of one process.

    Raises
    ------
    MachineError : it is above 1.25 times that. The error names the changes that would make it fit.
    """
    least = tightest()
    limit = least.left_mb
    need = estimate(network, task, examples, phases, precision, shards)
    size = f"about {need.total:,.0f} MB of {limit:,.0f}"
    decision = Decision(
        "memory",
        size,
        f"{need} MB; activations of {held_rows(phases)} of the "
        f"longest rows, measured; the limit: {least.words}",
    )
    if need.total <= limit:
        return need, decision, ()
    remedy = _remedy(need, limit, changes(network, task, examples, phases, precision, need))
    rule = (
        f"needs about {need.total:,.0f} MB of memory ({need}), and {limit:,.0f} MB are there "
        f"({least.words})"
    )
    if need.total > CLEARLY * limit:
        raise MachineError("the run", rule, None, remedy)
    return need, decision, (Finding("memory", "warn", 1.0, 1, (), f"the run {rule}", remedy),)


def refuse_clearly_too_large(network: Network, phases: tuple[Phase, ...], shards: int = 1) -> None:
    """Refuse a run whose weights, gradients, optimizer and copies alone are above 1.25 times what
    is there.

    It is asked before anything is passed through the network: that takes memory of its own, and
    the kernel would end the process before ``check_fit`` can say so. Raises ``MachineError``.
    """
    least = tightest()
    need = over_processes(_without_activations(network, phases), network, shards)
    if need.total > CLEARLY * least.left_mb:
        rule = (
            f"needs about {need.total:,.0f} MB of memory before any activation ({need}), and "
            f"{least.left_mb:,.0f} MB are there ({least.words})"
        )
        remedy = "Take a smaller model, --set model.adapter.kind=lora, or raise that limit."
        raise MachineError("the run", rule, None, remedy)


def estimate(
    network: Network,
    task: Task,
    examples: Examples,
    phases: tuple[Phase, ...],
    precision: str,
    shards: int = 1,
) -> Need:
    """What the run would hold at its peak, on one of ``shards`` devices."""
    kept = activations_mb(network, task, examples, precision) * held_rows(phases, shards)
    need = replace(_without_activations(network, phases), activations=kept)
    return over_processes(need, network, shards)


def over_processes(need: Need, network: Network, count: int) -> Need:
    """What one of ``count`` processes holds, over which all that is said of weights is spread
    (ZeRO's third stage, 1910.02054); the whole of one block is gathered at a time, with its
    gradient where it learns. A processor's memory holds the model as it was loaded beside it."""
    if count == 1:
        return need
    blocks = [list(layer.parameters()) for layer in network.layers()]
    largest = max(blocks, key=lambda block: sum(p.numel() * p.element_size() for p in block))
    gathered = sum(p.numel() * p.element_size() for p in largest) / MB
    learning = sum(p.numel() * p.element_size() for p in largest if p.requires_grad) / MB
    return replace(
        need,
        weights=(0.0 if on_gpu() else need.weights) + need.weights / count + gathered,
        gradients=need.gradients / count + learning,
        optimizer=need.optimizer / count,
        copies=need.copies / count,
    )


def _without_activations(network: Network, phases: tuple[Phase, ...]) -> Need:
    weights = weight_bytes(network) / MB
    learns = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad) / MB
    gpu = on_gpu()
    gradients = 1 + max(phase.stepper.copies for phase in phases)
    return Need(
        weights,
        gradients * learns,
        STATES.get(phases[-1].optimizer, 2) * learns,
        0.0,
        (max(phase.copies for phase in phases) + (0 if gpu else COPIES)) * learns,
        0.0 if gpu else max(0.0, resident_mb() - weights),
    )


def activations_mb(network: Network, task: Task, examples: Examples, precision: str) -> float:
    """MB that autograd keeps for one of the longest rows in training mode.

    The network's buffers and the random generators are left as they were.
    """
    import torch

    from holdfast.training.restore import random_state, set_random_state

    order = np.argsort(-np.asarray(examples.lengths), kind="stable")
    rows = order[: 1 if int(examples.lengths.max()) > LONG else 2]
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    mode, state = network.training, random_state()
    device = next(network.parameters()).device
    batch = device_batch(task, examples, rows, device)
    # Autograd keeps the weights too, and they are counted already. By storage: of what it keeps,
    # several tensors may be views of one.
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        # Not the tensor itself: what an operation keeps of its own output would hold that operation
        # for ever, and with it the graph and the weights of every fit.
        return tensor.detach()

    network.train()
    half = autocast(device.type, precision)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), half:
        output = task.forward(network, batch)
        losses = task.losses(output, batch)
    del output, losses
    network.train(mode)
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    set_random_state(state)
    return sum(kept.values()) / MB / len(rows)


def changes(
    network: Network,
    task: Task,
    examples: Examples,
    phases: tuple[Phase, ...],
    precision: str,
    need: Need,
) -> Iterator[Reduction]:
    """What could be done, the least costly first, each with its effect."""
    size, together = _at_once(phases[-1]), phases[-1].rows_per_step
    for times in (2**k for k in range(1, size.bit_length() + 1)):
        piece = -(-size // times)
        if piece < -(-size // (times // 2)):
            yield Reduction(
                (f"train.batch_size={piece}", f"train.accumulate={-(-together // piece)}"),
                partial(_less, share=piece / size),
            )
    share = _checkpointed_share(
        network, task, examples, precision, need.activations / held_rows(phases)
    )
    if share < 1:
        yield Reduction(("train.checkpoint_activations=true",), partial(_less, share=share))
    if precision == "float32":
        yield Reduction(("train.precision=bfloat16",), partial(_less, share=HALF))
    alone = network.adapter is None
    lora = ("model.adapter.kind=lora",) if alone else ()
    if alone:
        yield Reduction(lora, _with_lora)
    if saved := quantizable_mb(network):
        yield Reduction((*lora, f"{QUANTIZE}=4bit"), partial(_in_4_bits, saved=saved, alone=alone))


def _less(need: Need, share: float) -> Need:
    return replace(need, activations=need.activations * share)


def _with_lora(need: Need) -> Need:
    small = min(1.0, LORA_SHARE * need.weights / max(need.gradients, 1e-9))
    return replace(
        need,
        gradients=need.gradients * small,
        optimizer=need.optimizer * small,
        copies=need.copies * small,
    )


def _in_4_bits(need: Need, saved: float, alone: bool) -> Need:
    need = _with_lora(need) if alone else need
    return replace(need, weights=need.weights - saved)


def quantizable_mb(network: Network) -> float:
    """MB that 4-bit loading would take off the weights; 0 where it is not possible, or done."""
    plain, adapter = getattr(network, "plain", None), network.adapter
    there = importlib.util.find_spec("bitsandbytes") is not None
    if plain is None or is_quantized(network) or not there:
        return 0.0
    layers = quantizable(plain)
    weights = [w for w in layers if adapter is None or id(w) in adapter.frozen_ids]
    return float(sum(w.numel() * (w.element_size() - BYTES[4]) for w in weights) / MB)


def _remedy(need: Need, limit: float, offered: Iterator[Reduction]) -> str:
    """The fewest changes that fit; of as many, the least costly."""
    known = list(offered)
    for count in range(1, len(known) + 1):
        for chosen in itertools.combinations(known, count):
            names = [s.partition("=")[0] for change in chosen for s in change.settings]
            # Two values of one setting.
            if len(set(names)) < len(names):
                continue
            smaller = need
            for change in chosen:
                smaller = change.apply(smaller)
            if smaller.total <= limit:
                flags = " ".join(f"--set {s}" for change in chosen for s in change.settings)
                return f"It would fit (about {smaller.total:,.0f} MB) with {flags}."
    return "No setting makes it fit: take a smaller model, shorter texts or a larger machine."


def _checkpointed_share(
    network: Network, task: Task, examples: Examples, precision: str, whole: float
) -> float:
    """What is left of the activations with gradient checkpointing: measured, and one block."""
    model = next((m for m in network.modules() if can_checkpoint(m)), None)
    on = any(getattr(module, "gradient_checkpointing", False) for module in network.modules())
    if model is None or on or not whole:
        return 1.0
    switch_checkpointing(model, True)
    try:
        left = activations_mb(network, task, examples, precision)
    finally:
        switch_checkpointing(model, False)
    blocks = max(1, sum(layer.name not in ("embeddings", "head") for layer in network.layers()))
    return min(1.0, left / whole + 1 / blocks)


def held_rows(phases: tuple[Phase, ...], shards: int = 1) -> int:
    """Rows whose activations are there at once, where ``shards`` processes share those of a
    batch."""
    return max(-(-_at_once(phase) // shards) for phase in phases)


def _at_once(phase: Phase) -> int:
    most = None if on_gpu() else phase.part_rows
    rows = phase.batch_size if most is None else min(most, phase.batch_size)
    return rows * phase.at_once


def available_mb() -> float:
    """Memory that this process may have in all, what it holds already included."""
    return tightest().left_mb


def tightest() -> Limit:
    """``available_mb``, and whose limit it is: the machine's, or a smaller one that a container, a
    batch job or ``ulimit`` set for this process."""
    if on_gpu():
        import torch

        free, _ = torch.cuda.mem_get_info()
        return Limit(float((free + torch.cuda.memory_reserved()) / MB), "what is free on the GPU")
    import psutil

    machine = Limit(float(psutil.virtual_memory().available / MB), "what the machine has free")
    least = min([machine, *memory_limits()], key=lambda limit: limit.left_mb)
    left = least.left_mb + resident_mb()
    if math.isinf(least.whole_mb):
        return replace(least, left_mb=left)
    # The pages of programs and libraries are resident, and a group can give them back.
    files = 0.0 if least.addresses else file_pages_mb()
    words = f"{least.words}, beside {files:,.0f} MB of program files" if files else least.words
    return replace(least, left_mb=min(left, least.whole_mb + files), words=words)


def free_mb() -> float:
    """What is left beside what this process holds already."""
    left = tightest().left_mb
    return left if on_gpu() else left - resident_mb()


def resident_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss / MB)


def on_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
