"""A stranger's small program within bounds on time and memory: a chat template, say."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

# Bytes of a page on x86 and most ARM kernels, in which ``statm`` counts.
PAGE = 4096
STATM = Path("/proc/self/statm")


class OverrunError(Exception):
    """What ran did not end in its time."""


@contextlib.contextmanager
def bounded(seconds: float, memory: int) -> Iterator[None]:
    """End what runs inside after ``seconds``, and refuse it more than ``memory`` further bytes.

    Time is bounded in the main thread, memory on Linux; elsewhere that bound is not there. What
    runs for long inside one call of a library in C ends when that call does.

    Raises ``OverrunError`` or ``MemoryError``.
    """
    with _memory(memory), _time(seconds):
        yield


@contextlib.contextmanager
def _time(seconds: float) -> Iterator[None]:
    # Only the main thread may set a signal's handler.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise OverrunError(f"did not end within {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, end)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # There is one such timer in a process, and the program round us may have set it.
        signal.setitimer(signal.ITIMER_REAL, left, every)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory(more: int) -> Iterator[None]:
    try:
        import resource

        # The first field is what is mapped, which is what the limit counts; what is used is far
        # less.
        used = int(STATM.read_text().split()[0]) * PAGE
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError, ValueError):
        yield
        return
    least = [limit for limit in (soft, hard, used + more) if limit != resource.RLIM_INFINITY]
    # The soft limit alone: a process cannot raise a hard one again.
    resource.setrlimit(resource.RLIMIT_AS, (min(least), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


__all__: list[Any] = ["OverrunError", "bounded"]
