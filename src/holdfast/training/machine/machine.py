"""Choices that depend on the machine: threads, precision, matrix products. They are made once
before step 0, with a reason, stored in the run's recipe, and reused on resume.

In float16 the loss is multiplied by a scale before the backward pass, and the gradients are divided
by it again, so that small gradients do not vanish (1710.03740). float16 ends at 65,504, and too
large a scale makes gradients infinite: then the update is skipped, the scale is halved, and a note
says so. After 2,000 updates without an overflow it is doubled. All of this is PyTorch's
``GradScaler``, on any device.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from holdfast.core.errors import MachineError, TrainingError
from holdfast.core.input_errors import reading_errors
from holdfast.core.machine import process_count, refuse_too_many_threads, usable_cores
from holdfast.core.records import Decision

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from holdfast.training.journal import Journal


ROUNDS, PROBE_SECONDS = 2, 0.125
# A step in bfloat16 also converts the weights, which takes some of the gain of its products.
HALF_FASTER_BY = 1.2
# oneDNN and its wrapper keep a compiled kernel with its scratch memory for every shape, and rows of
# many lengths give many shapes: the default of 1,024 took 300 MB in a run on 400 rows, and with 16
# nothing was slower. Images have one size, and a convolutional network many kernels, each needed
# again in every step: with 16 a step of a small ResNet took 1.6 times as long.
KERNEL_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
KERNEL_CACHE_SIZE = "16"
# PyTorch reads it when it is loaded.
APPLE_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"


@dataclass(frozen=True, slots=True)
class MachineChoice:
    """``threads`` for PyTorch, ``precision`` of the forward and backward pass, and the library for
    float32 matrix products: PyTorch's ``default`` or ``onednn``."""

    threads: int
    precision: str
    matmul: str
    decisions: tuple[Decision, ...]


@contextmanager
def flushed_subnormals() -> Iterator[None]:
    """A context in which subnormal results of PyTorch and NumPy on a CPU become 0: numbers nearer
    to 0 than the smallest normal number (1.2e-38 in float32).

    CPUs compute with such numbers many times slower, and the softmax of an attention with unscaled
    scores (T5's) gives many of them: a step of a small T5 took 2.8 times as long. It applies to
    this thread, and to those that PyTorch starts from here on. On exit this thread is restored.
    Other devices have their own rules.
    """
    import torch

    before = _flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes() -> bool:
    import torch

    return float(torch.tensor(2.0**-126, dtype=torch.float32).mul(0.5)) == 0


def choose_machine(
    threads: int | None,
    precision: str,
    matmul: str = "auto",
    *,
    one_size: bool = False,
    float16: bool = True,
) -> MachineChoice:
    """Choose what the recipe leaves open, and set PyTorch's number of threads. ``one_size`` says
    that all batches have the same shape; without ``float16`` that precision is never used."""
    for name in KERNEL_CACHES if not one_size else ():
        os.environ.setdefault(name, KERNEL_CACHE_SIZE)
    _use_cudnn_attention(one_size)
    count, threads_because = _choose_threads(threads)
    use_threads(count)
    chosen_precision, precision_because = _choose_precision(precision, float16)
    chosen_matmul, products_because = _choose_matmul(matmul)
    decisions = (
        Decision("train.threads", str(count), threads_because),
        Decision("train.precision", chosen_precision, precision_because),
        Decision("train.matmul", chosen_matmul, products_because),
        *_device_decisions(),
    )
    return MachineChoice(count, chosen_precision, chosen_matmul, decisions)


def _use_cudnn_attention(one_size: bool) -> None:
    """Allow cuDNN's attention only if all batches have the same shape (``one_size``); otherwise
    turn it off in the whole process. cuDNN prepares an execution plan for each new shape: in one
    run on an H100, MiniLM trained on 400 short texts in 30 s with it and in 15 s with PyTorch's
    other kernels."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(one_size)


def use_threads(count: int) -> None:
    """Set the number of threads that PyTorch uses from here on, in the whole process."""
    import torch

    torch.set_num_threads(count)


def has_fast_bfloat16(device: str) -> tuple[bool, str]:
    """Whether ``device`` (cpu, cuda, mps) multiplies bfloat16 in hardware, and a processor faster
    than float32; and the evidence, as a clause."""
    import torch

    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name()
        return fast, f"{name} {'supports' if fast else 'does not support'} bfloat16"
    if device == "mps":
        return False, "bfloat16 is not used on Apple GPUs"
    flags = _processor_flags() & {"amx_bf16", "avx512_bf16", "bf16", "svebf16"}
    if not flags:
        return False, "the CPU does not support bfloat16"
    gain = _bfloat16_gain(torch.get_num_threads())
    shown = ", ".join(sorted(flags))
    because = f"measured: bfloat16 has {gain:.2g} times the speed of float32 (CPU flags: {shown})"
    return gain >= HALF_FASTER_BY, because


@cache
def _bfloat16_gain(threads: int) -> float:
    """Measured once for a number of threads: all fits of a process use one precision."""
    from holdfast.models.compute.processor import measure_bfloat16

    return measure_bfloat16()


def has_tensor_cores() -> bool:
    """Whether the GPU multiplies float16 many times as fast as float32 (Volta, T4, RTX 20)."""
    import torch

    return torch.version.hip is not None or torch.cuda.get_device_capability() >= (7, 0)


def autocast(device: str, precision: str) -> torch.autocast:
    """A context in which ``device`` computes matrix products in ``precision``."""
    import torch

    half = torch.bfloat16 if precision == "float32" else getattr(torch, precision)
    return torch.autocast(device, half, enabled=precision != "float32")


def device_type() -> str:
    """``cuda``, ``mps`` or ``cpu``: the best device that PyTorch finds."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def runs_several_cpu_processes() -> bool:
    """Whether a launcher started several processes that use only the CPU.

    Accelerate must be told: under plain ``torchrun`` it would treat each as a separate run.
    """
    return process_count() > 1 and device_type() == "cpu"


def _device_decisions() -> tuple[Decision, ...]:
    """Decisions about the CPU, and about an Apple GPU."""
    if device_type() == "cpu" and _flushes():
        because = "a CPU computes many times slower with them"
        return (Decision("subnormal numbers (below 1.2e-38)", "0", because),)
    if device_type() != "mps":
        return ()
    lacking = "4 and 8 bits, float16 with loss scaling and several processes are not supported"
    if os.environ.get(APPLE_FALLBACK) == "1":
        because = f"an Apple GPU; operations that it lacks run on the CPU; {lacking}"
        return (Decision("device", "mps", because),)
    because = (
        f"an Apple GPU; an operation that it lacks ends the run: set {APPLE_FALLBACK}=1 before "
        f"Python starts to run such operations on the CPU; {lacking}"
    )
    return (Decision("device", "mps", because, prominent=True),)


def _choose_precision(requested: str, float16: bool) -> tuple[str, str]:
    device = device_type()
    if requested == "float16" and not float16:
        rule = "is float16, in which activations of T5 overflow"
        remedy = "Set bfloat16 or float32 for an encoder-decoder."
        raise MachineError("train.precision", rule, None, remedy)
    if requested == "float16" and device != "cuda":
        rule = "is float16, which needs an NVIDIA or AMD GPU"
        remedy = "Remove the setting: Holdfast then chooses what suits this machine."
        raise MachineError("train.precision", rule, device, remedy)
    if requested != "auto":
        return requested, "set in the recipe"
    fast, because = has_fast_bfloat16(device)
    if fast:
        return "bfloat16", f"{because}; weights stay float32"
    if float16 and device == "cuda" and has_tensor_cores():
        return "float16", f"{because}, but float16; weights stay float32, and losses are scaled"
    return "float32", because


def _choose_matmul(requested: str) -> tuple[str, str]:
    from holdfast.models.compute.processor import FASTER_BY, measure_gain

    if requested != "auto":
        return requested, "set in the recipe"
    if device_type() != "cpu":
        return "default", "the accelerator computes the products"
    gain = measure_gain()
    if not gain:
        return "default", "this PyTorch has no oneDNN"
    because = f"measured: oneDNN is {gain:.1f} times as fast as the default in float32"
    return ("onednn" if gain >= FASTER_BY else "default"), because


def _choose_threads(requested: int | None) -> tuple[int, str]:
    if requested is not None:
        refuse_too_many_threads("train.threads", requested)
        return requested, "set in the recipe"
    variable = os.environ.get("OMP_NUM_THREADS", "")
    if variable.isdigit() and int(variable) > 0:
        refuse_too_many_threads("OMP_NUM_THREADS", int(variable))
        return int(variable), "OMP_NUM_THREADS is set"
    cores = usable_cores()
    if cores == 1:
        return 1, "one core is usable"
    # In turn, and the best of each: a moment of other work does not decide for the whole run.
    speeds_of_rounds = [[_steps_per_second(n) for n in (1, cores)] for _ in range(ROUNDS)]
    alone, together = map(max, zip(*speeds_of_rounds, strict=True))
    # Several threads must be clearly faster: on shared cores they spin while waiting.
    best = cores if together > 1.15 * alone else 1
    speeds = f"{alone:.0f} small steps per second on 1 thread, {together:.0f} on {cores}"
    return best, f"measured in half a second: {speeds}"


def _steps_per_second(threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    left, right = torch.ones(512, 384), torch.ones(384, 1536)
    torch.nn.functional.gelu(left @ right)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < PROBE_SECONDS:
        torch.nn.functional.gelu(left @ right).sum()
        count += 1
    return count / (time.perf_counter() - start)


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def make_accelerator(precision: str) -> Accelerator:
    """Accelerate's view of devices and processes; autocast in ``precision``, and in float16 the
    gradient scaler.

    Accelerate keeps one state per process and refuses another precision in it; a second run in the
    same process resets that state.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    mixed = {"bfloat16": "bf16", "float16": "fp16"}.get(precision, "no")
    known = AcceleratorState._shared_state.get("_mixed_precision", mixed)
    if known != mixed:
        # Accelerate allows one precision per process; the previous run is over.
        AcceleratorState._reset_state()
    remedy = "Unset those of these variables whose value Accelerate does not know."
    with reading_errors("ACCELERATE_* and LOCAL_RANK", MachineError, "cannot be used", remedy):
        return Accelerator(mixed_precision=mixed, cpu=runs_several_cpu_processes())


# After so many halvings of the first scale, 65,536, the loss itself overflows.
MOST_IN_A_ROW = 24


class ScaleState(TypedDict, total=False):
    """The state of a loss scale in a checkpoint; empty where there is none."""

    skipped: int
    in_a_row: int
    scaler: dict[str, Any]


class LossScale:
    """The loss scale of one run; without a ``scaler`` (any precision except float16) it does
    nothing.

    ``skipped`` counts all skipped updates, ``in_a_row`` the most recent consecutive ones.
    """

    def __init__(self, scaler: torch.amp.GradScaler | None) -> None:
        self._scaler = scaler
        self.skipped = 0
        self.in_a_row = 0

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, before anything reads them."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(
        self, optimizer: torch.optim.Optimizer, norm: float, number: int, journal: Journal
    ) -> bool:
        """Take the optimizer's step of the update ``number``. Returns ``False``, with a note in the
        ``journal``, where the gradients (of this ``norm``) overflowed and the step was skipped.

        Raises ``TrainingError`` where too many updates in a row are skipped.
        """
        if self._scaler is None:
            optimizer.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        if math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        now = self._scaler.get_scale()
        because = (
            f"its gradients overflow float16 at a loss scale of {before:,.0f}: the weights are not "
            f"changed, and the scale is {now:,.0f} from here on ({self.skipped} updates skipped so "
            "far)"
        )
        journal.note(number, "update skipped", because, chosen="float16")
        if self.in_a_row >= MOST_IN_A_ROW:
            raise TrainingError(
                f"step {number}",
                f"gave gradients that overflow float16, as did the {self.in_a_row - 1} updates "
                "before it",
                None,
                "Set train.precision=float32, or lower train.learning_rate.",
            )
        return False

    def state_dict(self) -> dict[str, Any]:
        """The state in types that the weights-only loader reads; empty without a scaler."""
        if self._scaler is None:
            return {}
        counts = {"skipped": self.skipped, "in_a_row": self.in_a_row}
        return {**counts, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: ScaleState) -> None:
        """Continue from such a state."""
        if self._scaler is None or not state:
            return
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self._scaler.load_state_dict(state["scaler"])
