"""What a network costs to compute, in counted operations, and how many this machine does in a
second: measured once and stored, so that estimates are the same in every run.

A forward pass of a row of n tokens through blocks with P weights takes, with L blocks of width w,

    2 P n + 4 L w n²   floating-point operations

(2001.08361, table 1: a multiplication and an addition for each weight and token; the second term
counts both products of the attention), and a backward pass twice as many.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.errors import InputError
from holdfast.core.files import cache_folder, write_json
from holdfast.core.machine import processor_name
from holdfast.core.records import Decision, Floats, Ints
from holdfast.models.compute.processor import product
from holdfast.training.machine.machine import MachineChoice, device_type, use_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from holdfast.models.base import Network

BACKWARD = 2
FILE = "machine.json"
# A product of a base encoder's size: tokens of a batch, width, and width of its inner layer.
TOKENS, WIDTH, INNER = 1024, 768, 3072
MEASURE_S, ROUNDS = 0.3, 5
# Operations a second that a machine may have; other records are damaged.
PLAUSIBLE = (1e6, 1e18)


def forward_operations(network: Network, lengths: Ints) -> Floats:
    """The operations of a forward pass of rows of these ``lengths`` in tokens [n]."""
    blocks = [layer for layer in network.layers() if layer.name.startswith("block")]
    weights = sum(p.numel() for block in blocks for p in block.parameters())
    width = int(getattr(network.config, "hidden_size", 0))
    tokens = np.asarray(lengths, dtype=np.float64)
    return np.asarray(2 * weights * tokens + 4 * len(blocks) * width * tokens**2)


def operations_per_second(machine: MachineChoice) -> float:
    """Floating-point operations a second of a product of matrices, with the threads, precision and
    library of ``machine``. Read from the user's cache (``HOLDFAST_CACHE``, by default
    ``~/.cache/holdfast``) where it was measured before."""
    path = cache_folder() / FILE
    key = _key(machine)
    known = _read(path)
    if key in known:
        return known[key]
    speed = _measure(machine)
    because = f"measured on a product of matrices and stored in {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**known, key: speed})
    except (OSError, InputError) as error:
        because = f"could not be stored, so the next run measures it again: {error}"
    notify(Decision("speed of this machine", f"{speed / 1e9:,.0f} GFLOP/s", because))
    return speed


def _read(path: Path) -> dict[str, float]:
    """What is kept; nothing where the file is missing or no such record, which costs a third of a
    second."""
    try:
        kept: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    least, most = PLAUSIBLE
    known = kept.items() if isinstance(kept, dict) else ()
    return {key: value for key, value in known if type(value) is float and least < value < most}


def _key(machine: MachineChoice) -> str:
    import torch

    device = device_type()
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    return (
        f"{device} {name}, {machine.threads} threads, {machine.precision}, {machine.matmul}, "
        f"torch {torch.__version__}"
    )


def _measure(machine: MachineChoice) -> float:
    import torch

    use_threads(machine.threads)
    device = torch.device(device_type())
    # What autocast casts is kept as it is cast, as a step does for its weights.
    precision = getattr(torch, machine.precision)
    rows = torch.ones(TOKENS, WIDTH, device=device, dtype=precision)
    weights = torch.ones(INNER, WIDTH, device=device, dtype=precision)
    onednn = machine.matmul == "onednn" and machine.precision == "float32"
    multiply = product if onednn else torch.nn.functional.linear
    with torch.inference_mode():
        multiply(rows, weights)
        seconds = min(_seconds(lambda: multiply(rows, weights), device) for _ in range(ROUNDS))
    return 2.0 * TOKENS * WIDTH * INNER / seconds


def _seconds(compute: Callable[[], object], device: torch.device) -> float:
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        elif device.type == "mps":
            torch.mps.synchronize()

    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < MEASURE_S / ROUNDS:
        compute()
        wait()
        count += 1
    return (time.perf_counter() - start) / count
