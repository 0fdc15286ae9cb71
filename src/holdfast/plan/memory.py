"""Estimate the memory of a run before its first step, and suggest settings that reduce it.

Weights, gradients and the optimizer's state are counted; activations are measured, as the bytes
that autograd keeps in forward passes of the longest rows. Weights count as they are stored
(float32, or quantised with their scales). 1 MB is 10⁶ bytes.

Also finds the memory available to a run, and which limit applies.
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

from holdfast.contract.fit import MemoryEstimate
from holdfast.core.errors import MachineError
from holdfast.core.machine import MB, MemoryLimit, file_pages_mb, memory_limits, return_freed_memory
from holdfast.core.records import Decision, Finding, Ints
from holdfast.models.adapters.quantize import BYTES, is_quantized, quantizable, weight_bytes
from holdfast.models.adapters.quantize import SETTING as QUANTIZE
from holdfast.models.compute.processor import can_checkpoint, switch_checkpointing
from holdfast.plan.control import SETTING as POLICY
from holdfast.plan.control import STOP
from holdfast.training.machine.machine import autocast
from holdfast.training.plan import Phase
from holdfast.training.step import COMPARED_PART_ROWS
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Network
    from holdfast.training.task import Examples, TrainingTask


LONG_ROW_TOKENS = 1024
# Copies of the trained weights in CPU memory: the base model's, the last, the best checkpoint's.
WEIGHT_COPIES = 3
OPTIMIZER_STATES = {"adamw": 2, "adam": 2, "rmsprop": 1, "sgd": 1, "paged_adamw8bit": 0.51}
LORA_SHARE, HALF = 0.02, 0.55
# What a step takes for each byte that its forward pass keeps: gradients of activations, and freed
# memory that no later tensor fits into. On a CPU measured with MiniLM and SmolLM2
# (``benchmarks/foretold.py``), on a GPU not.
STEP_ON_CPU, STEP_ON_GPU = 1.6, 1.2
# Beyond this factor the run is refused; below it the estimate may be off, so it may be tried.
CLEAR_EXCESS = 1.25
# The estimate can be a fifth too low (``benchmarks/foretold.py``).
MARGIN = 1.2


@dataclass(frozen=True, slots=True)
class Reduction:
    """A change that reduces memory: its ``--set`` strings, and the memory with it."""

    settings: tuple[str, ...]
    apply: Callable[[MemoryEstimate], MemoryEstimate]


def check_fit(
    network: Network,
    task: TrainingTask,
    examples: Examples,
    phases: tuple[Phase, ...],
    precision: str,
    shards: int = 1,
    *,
    acts: bool = False,
) -> tuple[MemoryEstimate, Decision, tuple[Finding, ...]]:
    """The estimate, logged; a warning where ``MARGIN`` times it exceeds the available memory.

    For a network in ``shards`` it is that of one process. ``acts``: whether a policy may go back in
    the run.

    Raises
    ------
    MachineError : it exceeds 1.25 times the available memory even without restore points. The
        error names the changes that would make it fit.
    """
    limit_found = tightest_limit()
    limit = limit_found.left_mb
    need = estimate(network, task, examples, phases, precision, shards)
    points = _restore_points_mb(network, need) if acts else 0.0
    need = replace(need, copies=need.copies + points)
    size = f"about {need.total:,.0f} MB of {limit:,.0f}"
    decision = Decision(
        "memory",
        size,
        f"{need} MB; activations of {rows_in_memory(phases)} of the "
        f"longest rows, measured; the limit is {limit_found.description}",
    )
    if MARGIN * need.total <= limit:
        return need, decision, ()
    reductions = possible_reductions(network, task, examples, phases, precision, need)
    if points:
        without = Reduction((f"{POLICY}={STOP}",), partial(_with_fewer_copies, mb=points))
        reductions = itertools.chain([without], reductions)
    remedy = _remedy(need, limit, reductions)
    if need.total <= limit:
        rule = (
            f"needs about {need.total:,.0f} of the {limit:,.0f} MB of memory that are available "
            f"({limit_found.description}): {need}; the estimate can be a fifth too low"
        )
    else:
        rule = (
            f"needs about {need.total:,.0f} MB of memory ({need}), but only {limit:,.0f} MB are "
            f"available ({limit_found.description})"
        )
    if need.total - points > CLEAR_EXCESS * limit:
        raise MachineError("the run", rule, None, remedy)
    return need, decision, (Finding("memory", "warn", 1.0, 1, (), f"the run {rule}", remedy),)


def _restore_points_mb(network: Network, need: MemoryEstimate) -> float:
    """The first, the best and the present evaluation, from which a run can continue, beyond the
    copies that every run has: the first weights, and two optimizer states. In CPU memory."""
    return 0.0 if on_gpu() else _trainable_mb(network) + 2 * need.optimizer


def _with_fewer_copies(need: MemoryEstimate, mb: float) -> MemoryEstimate:
    return replace(need, copies=need.copies - mb)


def refuse_clearly_too_large(network: Network, phases: tuple[Phase, ...], shards: int = 1) -> None:
    """Refuse a run whose weights, gradients, optimizer state and copies exceed 1.25 times the
    available memory, before counting activations.

    Call it before any forward pass: a pass takes memory too, and the kernel would kill the process
    before ``check_fit`` could raise its error. Raises ``MachineError``.
    """
    least = tightest_limit()
    need = sharded_need(_without_activations(network, phases), network, shards)
    if need.total > CLEAR_EXCESS * least.left_mb:
        rule = (
            f"needs about {need.total:,.0f} MB of memory before any activation ({need}), but only "
            f"{least.left_mb:,.0f} MB are available ({least.description})"
        )
        lora = " or --set model.adapter.kind=lora" if network.adapter is None else ""
        remedy = f"Use a smaller model{lora}, or raise that limit."
        raise MachineError("the run", rule, None, remedy)


def estimate(
    network: Network,
    task: TrainingTask,
    examples: Examples,
    phases: tuple[Phase, ...],
    precision: str,
    shards: int = 1,
) -> MemoryEstimate:
    """The peak memory of the run, on one of ``shards`` devices."""
    # Before the pass, and without what was freed: the run uses that again.
    return_freed_memory()
    need = _without_activations(network, phases)
    lengths = np.asarray(examples.lengths)
    held = max(_longest_rows_held(phase, lengths, shards) for phase in phases)
    kept = activations_mb(network, task, examples, precision, held)
    return_freed_memory()
    need = replace(need, activations=(STEP_ON_GPU if on_gpu() else STEP_ON_CPU) * kept)
    if not on_gpu():
        # The saved model is scored next to the trained one, in the memory that the steps needed.
        steps = need.gradients + need.optimizer + need.activations
        need = replace(need, copies=need.copies + max(0.0, need.weights - steps))
    return sharded_need(need, network, shards)


def sharded_need(need: MemoryEstimate, network: Network, count: int) -> MemoryEstimate:
    """The memory of one of ``count`` processes that share weights, gradients and optimizer state
    (ZeRO's third stage, 1910.02054). One full block is gathered at a time, with its gradient where
    it is trained. CPU memory also holds the model as it was loaded."""
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


def _without_activations(network: Network, phases: tuple[Phase, ...]) -> MemoryEstimate:
    weights = weight_bytes(network) / MB
    learns, gpu = _trainable_mb(network), on_gpu()
    gradients = 1 + max(phase.stepper.copies for phase in phases)
    return MemoryEstimate(
        weights,
        gradients * learns,
        OPTIMIZER_STATES.get(phases[-1].optimizer, 2) * learns,
        0.0,
        (max(phase.copies for phase in phases) + (0 if gpu else WEIGHT_COPIES)) * learns,
        0.0 if gpu else max(0.0, resident_mb() - weights),
    )


def _trainable_mb(network: Network) -> float:
    return sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad) / MB


def activations_mb(
    network: Network, task: TrainingTask, examples: Examples, precision: str, rows: float
) -> float:
    """MB that autograd keeps for so many of the longest ``rows`` in training mode.

    A line through those of one row and of two: copies of weights in bfloat16 are kept once, however
    many rows there are. Of very long rows, in proportion to one.
    The network's buffers and the random generators are restored.
    """
    lengths = np.asarray(examples.lengths)
    order = np.argsort(-lengths, kind="stable")
    one = kept_mb(network, task, examples, precision, order[:1])
    if rows == 1 or len(order) == 1 or int(lengths.max()) > LONG_ROW_TOKENS:
        return rows * one
    return one + (rows - 1) * (kept_mb(network, task, examples, precision, order[:2]) - one)


def kept_mb(
    network: Network, task: TrainingTask, examples: Examples, precision: str, rows: Ints
) -> float:
    """MB that autograd keeps in one forward pass of these rows."""
    import torch

    from holdfast.training.restore import random_state, set_random_state

    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    mode, state = network.training, random_state()
    device = next(network.parameters()).device
    batch = device_batch(task, examples, rows, device)
    # Autograd keeps the weights too, which are already counted. Count by storage: several of the
    # kept tensors may be views of one.
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved_bytes: dict[int, int] = {}

    def record_tensor(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved_bytes[storage.data_ptr()] = storage.nbytes()
        # Not the tensor itself: an operation that keeps its own output would then never be freed,
        # nor the graph and the weights of every fit.
        return tensor.detach()

    network.train()
    half = autocast(device.type, precision)
    with torch.autograd.graph.saved_tensors_hooks(record_tensor, lambda tensor: tensor), half:
        output = task.forward(network, batch)
        losses = task.losses(output, batch)
    del output, losses
    network.train(mode)
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    set_random_state(state)
    return sum(saved_bytes.values()) / MB


def possible_reductions(
    network: Network,
    task: TrainingTask,
    examples: Examples,
    phases: tuple[Phase, ...],
    precision: str,
    need: MemoryEstimate,
) -> Iterator[Reduction]:
    """Changes that reduce memory, the least costly first, each with its effect."""
    size, rows_per_step = _rows_at_once(phases[-1]), phases[-1].rows_per_step
    for times in (2**k for k in range(1, size.bit_length() + 1)):
        piece = -(-size // times)
        if piece < -(-size // (times // 2)):
            yield Reduction(
                (
                    f"train.batch_size={piece}",
                    f"train.gradient_accumulation_steps={-(-rows_per_step // piece)}",
                ),
                partial(_with_less_activations, share=piece / size),
            )
    share = _checkpointed_share(network, task, examples, precision, rows_in_memory(phases))
    if share < 1:
        yield Reduction(
            ("train.gradient_checkpointing=true",), partial(_with_less_activations, share=share)
        )
    if precision == "float32":
        yield Reduction(("train.precision=bfloat16",), partial(_with_less_activations, share=HALF))
    full_fine_tuning = network.adapter is None
    lora = ("model.adapter.kind=lora",) if full_fine_tuning else ()
    if full_fine_tuning:
        yield Reduction(lora, _with_lora)
    if saved := quantizable_mb(network):
        yield Reduction(
            (*lora, f"{QUANTIZE}=4bit"), partial(_in_4_bits, saved=saved, alone=full_fine_tuning)
        )


def _with_less_activations(need: MemoryEstimate, share: float) -> MemoryEstimate:
    return replace(need, activations=need.activations * share)


def _with_lora(need: MemoryEstimate) -> MemoryEstimate:
    small = min(1.0, LORA_SHARE * need.weights / max(need.gradients, 1e-9))
    return replace(
        need,
        gradients=need.gradients * small,
        optimizer=need.optimizer * small,
        copies=need.copies * small,
    )


def _in_4_bits(need: MemoryEstimate, saved: float, alone: bool) -> MemoryEstimate:
    need = _with_lora(need) if alone else need
    return replace(need, weights=need.weights - saved)


def quantizable_mb(network: Network) -> float:
    """MB that 4-bit loading would save; 0 where it is impossible or already done."""
    plain, adapter = getattr(network, "plain", None), network.adapter
    there = importlib.util.find_spec("bitsandbytes") is not None
    if plain is None or is_quantized(network) or not there:
        return 0.0
    layers = quantizable(plain)
    weights = [w for w in layers if adapter is None or id(w) in adapter.frozen_ids]
    return float(sum(w.numel() * (w.element_size() - BYTES[4]) for w in weights) / MB)


def _remedy(need: MemoryEstimate, limit: float, reductions: Iterator[Reduction]) -> str:
    """The fewest changes that fit, with ``MARGIN`` where any do; among equally many, the least
    costly."""
    all_reductions = list(reductions)
    counts = range(1, len(all_reductions) + 1)
    for margin, count in itertools.product((MARGIN, 1.0), counts):
        for combination in itertools.combinations(all_reductions, count):
            names = [s.partition("=")[0] for change in combination for s in change.settings]
            # Two values for one setting.
            if len(set(names)) < len(names):
                continue
            smaller = need
            for change in combination:
                smaller = change.apply(smaller)
            if margin * smaller.total <= limit:
                flags = " ".join(f"--set {s}" for change in combination for s in change.settings)
                return f"It would fit (about {smaller.total:,.0f} MB) with {flags}."
    return "No setting makes it fit: use a smaller model, shorter texts or a larger machine."


def _checkpointed_share(
    network: Network, task: TrainingTask, examples: Examples, precision: str, rows: int
) -> float:
    """The activations with gradient checkpointing: those measured at block inputs, and one
    block."""
    activations = activations_mb(network, task, examples, precision, rows)
    model = next((m for m in network.modules() if can_checkpoint(m)), None)
    on = any(getattr(module, "gradient_checkpointing", False) for module in network.modules())
    if model is None or on or not activations:
        return 1.0
    switch_checkpointing(model, True)
    try:
        checkpointed = activations_mb(network, task, examples, precision, rows)
    finally:
        switch_checkpointing(model, False)
    blocks = max(1, sum(layer.name not in ("embeddings", "head") for layer in network.layers()))
    return min(1.0, checkpointed / activations + 1 / blocks)


def _longest_rows_held(phase: Phase, lengths: Ints, shards: int) -> float:
    """How many of the longest row's activations are held at once. Rows that are compared pass in
    parts of similar length, which are padded less, and all of them are held."""
    rows = rows_in_memory((phase,), shards)
    if not phase.compares_rows or rows > len(lengths):
        return rows
    longest = np.sort(lengths)[-rows:]
    parts = np.array_split(longest, math.ceil(rows / COMPARED_PART_ROWS))
    return float(sum(len(part) * part[-1] for part in parts) / max(1, longest[-1]))


def rows_in_memory(phases: tuple[Phase, ...], shards: int = 1) -> int:
    """Rows whose activations are held at once, where ``shards`` processes share the rows of a
    batch."""
    return max(-(-_rows_at_once(phase) // shards) for phase in phases)


def _rows_at_once(phase: Phase) -> int:
    most = None if on_gpu() else phase.part_rows
    rows = phase.batch_size if most is None else min(most, phase.batch_size)
    return rows * phase.passes_per_gradient


def available_mb() -> float:
    """The total memory that this process may use, including what it already holds."""
    return tightest_limit().left_mb


def tightest_limit() -> MemoryLimit:
    """``available_mb`` and the limit that sets it: the machine's, or a lower one that a container,
    a batch job or ``ulimit`` sets for this process."""
    if on_gpu():
        import torch

        free, _ = torch.cuda.mem_get_info()
        return MemoryLimit(
            float((free + torch.cuda.memory_reserved()) / MB), "the free memory of the GPU"
        )
    import psutil

    machine = MemoryLimit(
        float(psutil.virtual_memory().available / MB), "the free memory of the machine"
    )
    tightest = min([machine, *memory_limits()], key=lambda limit: limit.left_mb)
    left = tightest.left_mb + resident_mb()
    if math.isinf(tightest.total_mb):
        return replace(tightest, left_mb=left)
    # Pages of programs and libraries are resident, but the group can reclaim them.
    files = 0.0 if tightest.counts_mapped else file_pages_mb()
    words = (
        f"{tightest.description}, not counting {files:,.0f} MB of program files"
        if files
        else tightest.description
    )
    return replace(tightest, left_mb=min(left, tightest.total_mb + files), description=words)


def free_mb() -> float:
    """The memory left in addition to what this process already holds."""
    left = tightest_limit().left_mb
    return left if on_gpu() else left - resident_mb()


def resident_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss / MB)


def on_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
