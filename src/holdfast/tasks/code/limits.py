"""What a process gives up before it runs code that nobody has read. Standard library only, since
the process that runs it imports nothing of Holdfast.

Each of these holds alone, whatever the code does: processor time, memory, file size and the number
of processes (``setrlimit``), the network (a namespace of its own where the system allows one), the
superuser's rights, and Python's own doors (an audit hook, which cannot be taken off).
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000
NO_NEW_PRIVILEGES, NOBODY = 38, 65534
MB = 1_000_000
FILES = 64
# Prefixes of Python's audit events (PEP 578) that are refused; reading a module's file is not one.
REFUSED = (
    "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "tempfile.", "pty.", "urllib.", "http.",
    "ftplib.", "smtplib.", "poplib.", "imaplib.", "telnetlib.", "webbrowser.", "fcntl.", "mmap.",
    "marshal.", "pickle.", "signal.", "resource.", "glob.", "syslog.", "cpython.run_", "gc.",
    "sqlite3.load_extension", "sqlite3.enable_load_extension", "sys.setprofile", "sys.settrace",
    "sys.addaudithook", "builtins.input", "builtins.breakpoint",
)  # fmt: skip
HARMLESS = ("os.listdir", "os.scandir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def leave_network() -> str:
    """Move this process, and those it starts, into a network without a door; says what holds."""
    flags = NEW_NETWORK if os.geteuid() == 0 else NEW_NETWORK | NEW_USER
    try:
        done = ctypes.CDLL(None, use_errno=True).unshare(flags) == 0
    except (OSError, AttributeError):
        done = False
    if done:
        return "a network namespace of its own, without a device"
    return "sockets are refused inside Python alone: the system grants no network namespace"


def enter(seconds: float, memory_mb: int) -> None:
    """Give everything up, for good. ``memory_mb`` comes on top of what the process has mapped."""
    import resource

    cpu = max(1, int(seconds + 0.999))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    space = _mapped_bytes() + memory_mb * MB
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    _leave_superuser()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    sys.addaudithook(refuse)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: no process, no socket, no file but a module's to read."""
    if event == "open":
        _check_open(*arguments)
    elif event.startswith(REFUSED) and event not in HARMLESS:
        raise PermissionError(f"{event} is refused")


def _check_open(path: Any, mode: Any, flags: Any) -> None:
    writes = isinstance(flags, int) and bool(flags & WRITING)
    inside = isinstance(path, (str, bytes)) and _is_module(os.fsdecode(path))
    if writes or not inside:
        raise PermissionError("files are refused")


def _is_module(path: str) -> bool:
    return any(path.startswith(folder) for folder in _FOLDERS)


def _leave_superuser() -> None:
    """The limit on processes does not bind the superuser."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return


def _mapped_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 1000 * MB
    return pages * os.sysconf("SC_PAGE_SIZE")


_FOLDERS = tuple({str(Path(os.__file__).parent), *(p for p in sys.path if p.endswith("-packages"))})
