"""What a process gives up before it runs code that nobody has read. Standard library only, since
the process that runs it imports nothing of Holdfast.

First what any system offers: processor time, memory, file size and the number of processes
(``setrlimit``), the superuser's rights, and the network (a namespace of its own where the system
grants one). Then the kernel's fence (``fence.py``). Python's own doors (an audit hook) are shut
too: a first line that says sooner and plainer what is refused, and no more than that, since code
that reaches the interpreter's insides can take it off.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

# CLONE_NEWNET, CLONE_NEWIPC and CLONE_NEWUSER, which Python has names for from 3.12 on.
NEW_NETWORK, NEW_IPC, NEW_USER = 0x40000000, 0x08000000, 0x10000000
NOBODY = 65534
MB = 1_000_000
# Prefixes of Python's audit events (PEP 578) that are refused. Whatever a program needs is loaded
# before, so that no file is opened, not even a module's.
EVENTS = """
    open os. subprocess. socket. ctypes. shutil. tempfile. pty. urllib. http. ftplib. smtplib.
    poplib. imaplib. telnetlib. webbrowser. fcntl. mmap. marshal. pickle. signal. resource.
    glob. syslog. cpython.run_ gc. sqlite3.load_extension sqlite3.enable_load_extension
    sys.setprofile sys.settrace sys.addaudithook builtins.input builtins.breakpoint
"""
REFUSED = tuple(EVENTS.split())
# Loading a module looks into folders first; the kernel refuses that, and the module is not found.
HARMLESS = ("os.listdir", "os.scandir")


def leave_network() -> bool:
    """Move this process, and those it starts, into a network without a device, where it may."""
    namespaces = NEW_NETWORK | NEW_IPC
    flags = namespaces if os.geteuid() == 0 else namespaces | NEW_USER
    try:
        return bool(ctypes.CDLL(None, use_errno=True).unshare(flags) == 0)
    except (OSError, AttributeError):
        return False


def enter(fence: Any, parts: list[str], seconds: float, memory_mb: int, answer: int) -> None:
    """Give everything up, for good, but the descriptor ``answer``. ``memory_mb`` comes on top of
    what the process has mapped; ``parts`` are those of the kernel's ``fence`` that hold on this
    machine. Raises ``OSError`` where one does not hold after all."""
    import resource

    space = _mapped_bytes() + memory_mb * MB
    # While files can still be opened, for it opens ``/dev/null``.
    fence.keep_one_descriptor(answer)
    # Before the capabilities go: changing the user takes one.
    _leave_superuser()
    if sys.platform.startswith("linux"):
        fence.drop_capabilities()
        fence.keep_from_debuggers()
    if "landlock" in parts:
        fence.landlock()
    # The limit knows whole seconds.
    cpu = max(1, int(seconds + 0.999))
    # A program can catch the signal of the first limit, not that of the second.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for none in ("FSIZE", "CORE", "NPROC", "NOFILE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{none}"), (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    if "seccomp" in parts:
        # Last: what comes above needs calls that the filter refuses.
        fence.seccomp(answer)
    sys.addaudithook(refuse)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: no process, no socket, no file."""
    if event.startswith(REFUSED) and event not in HARMLESS:
        raise PermissionError(f"{event} is refused")


def _leave_superuser() -> None:
    """To be nobody. In a namespace that knows no such user, the superuser's rights are dropped
    all the same (``fence.drop_capabilities``)."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)


def _mapped_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 1000 * MB
    return pages * os.sysconf("SC_PAGE_SIZE")
