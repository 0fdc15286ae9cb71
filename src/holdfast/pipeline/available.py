"""What memory is there for a run, and whose limit it is."""

from __future__ import annotations

import math
from dataclasses import replace

from holdfast.core.machine import MB, Limit, file_pages_mb, memory_limits


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
