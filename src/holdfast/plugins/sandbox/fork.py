"""A fork of a process that has one thread, and of no other. Standard library only, since the
process that runs code imports nothing of Holdfast.

A fork copies one thread, and every lock as it stands: one that another thread held is never
released in the copy, which waits for it for good, with all the pipes that it inherited. So whatever
is forked is a process begun for that, before any thread (a fork server), with its libraries
configured to start none: ``ENVIRONMENT``.
"""

from __future__ import annotations

import os
from pathlib import Path

# Of a process that will be forked, from its start: its libraries read these when they are loaded.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    # The allocator of Arrow, which pandas loads, else has a thread that returns memory.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
THREADS = Path("/proc/self/task")


class ThreadedForkError(RuntimeError):
    """A process that has threads was to be forked."""


def threads() -> list[str]:
    """The names of this process's threads: on Linux all of them, elsewhere those of Python."""
    if THREADS.is_dir():
        return sorted((one / "comm").read_text().strip() for one in THREADS.iterdir())
    # Only here: each fork of a process that has loaded it cleans up after it.
    import threading

    return sorted(thread.name for thread in threading.enumerate())


def require_one_thread() -> None:
    """Raises ``ThreadedForkError`` where this process has more than one thread."""
    names = threads()
    if len(names) > 1:
        raise ThreadedForkError(f"a process with threads is not forked: {', '.join(names)}")


def fork() -> int:
    """As ``os.fork``. Raises ``ThreadedForkError`` where this process has more than one thread."""
    require_one_thread()
    return os.fork()
