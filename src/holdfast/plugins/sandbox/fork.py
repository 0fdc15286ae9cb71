"""Forks of processes with exactly one thread. Standard library only, since the process that runs
code imports nothing of Holdfast.

A fork copies one thread, and every lock in its current state. A lock that another thread held is
never released in the copy, which then waits forever, with all the pipes that it inherited. Only a
process started for this purpose is therefore forked, before it has any thread (a fork server), with
its libraries configured to start none: ``ENVIRONMENT``.
"""

from __future__ import annotations

import os
from pathlib import Path

# For a process that will be forked, from its start: its libraries read these when they are loaded.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    # Otherwise the allocator of Arrow, which pandas loads, has a thread that returns memory.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
THREADS = Path("/proc/self/task")


class ThreadedForkError(RuntimeError):
    """A process with threads was about to be forked."""


def threads() -> list[str]:
    """The names of this process's threads: on Linux all of them, elsewhere those of Python."""
    if THREADS.is_dir():
        return sorted((one / "comm").read_text().strip() for one in THREADS.iterdir())
    # Imported only here: each fork of a process that has loaded it cleans up after it.
    import threading

    return sorted(thread.name for thread in threading.enumerate())


def require_one_thread() -> None:
    """Raises ``ThreadedForkError`` where this process has more than one thread."""
    names = threads()
    if len(names) > 1:
        raise ThreadedForkError(f"a process with threads cannot be forked: {', '.join(names)}")


def fork() -> int:
    """As ``os.fork``. Raises ``ThreadedForkError`` where this process has more than one thread."""
    require_one_thread()
    return os.fork()
