"""Permissions that a process gives up, irrevocably, before it runs unreviewed code.

First what any system offers: limits on processor time, memory, file size and the number of
processes (``setrlimit``), the superuser's rights, and the network (a namespace of its own where the
system grants one). Then the kernel's fence: nothing inside Python can undo it. Python's own audit
hook also refuses access. It only serves to refuse earlier and with a clearer message, since code
that reaches the interpreter's internals can remove it.

The fence has two parts, both needed (``NEEDED``). Landlock (Linux 5.13) removes every right on
files, links, devices and, where the kernel is new enough, TCP ports, signals and abstract sockets;
nothing is allowed, so no path can be opened. A seccomp filter (BPF) lists the system calls that
computing in memory needs; any other returns EPERM: no file, no socket, no process, no signal, no
thread, no page that is both data and code. It can write to one descriptor only.

Standard library only, since the fenced process imports nothing of Holdfast. Started by itself
(``python -I -S fence.py``) it fences that process and prints as JSON what works here.

Sources: Linux, ``Documentation/userspace-api/landlock.rst`` and ``seccomp_filter.rst``,
``include/uapi/linux/{landlock,seccomp,filter,audit}.h``; the numbers of the calls are those of
``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# CLONE_NEWNET, CLONE_NEWIPC and CLONE_NEWUSER, which Python names from 3.12 on.
NEW_NETWORK, NEW_IPC, NEW_USER = 0x40000000, 0x08000000, 0x10000000
NOBODY = 65534
MB = 1_000_000
# Prefixes of Python's audit events (PEP 578) that are refused. What a program needs is loaded
# before, so that no file is opened, not even a module's.
EVENTS = """
    open os. subprocess. socket. ctypes. shutil. tempfile. pty. urllib. http. ftplib. smtplib.
    poplib. imaplib. telnetlib. webbrowser. fcntl. mmap. marshal. pickle. signal. resource.
    glob. syslog. cpython.run_ gc. sqlite3.load_extension sqlite3.enable_load_extension
    sys.setprofile sys.settrace sys.addaudithook builtins.input builtins.breakpoint
"""
REFUSED_EVENTS = tuple(EVENTS.split())
# Importing a module first searches folders; the kernel refuses that, and the module is not found.
ALLOWED_EVENTS = ("os.listdir", "os.scandir")


def leave_network() -> bool:
    """Move this process, and those it starts, into a network without a device, where the system
    allows it.
    """
    namespaces = NEW_NETWORK | NEW_IPC
    flags = namespaces if os.geteuid() == 0 else namespaces | NEW_USER
    try:
        return bool(ctypes.CDLL(None, use_errno=True).unshare(flags) == 0)
    except (OSError, AttributeError):
        return False


def enter(parts: list[str], seconds: float, memory_mb: int, answer: int) -> None:
    """Give up all permissions, irrevocably, except the descriptor ``answer``.

    ``memory_mb`` is added to what the process has mapped; ``parts`` are those of the kernel's fence
    that work on this machine. Raises ``OSError`` where one does not work after all.
    """
    import resource

    space = _mapped_bytes() + memory_mb * MB
    # While files can still be opened, since it opens ``/dev/null``.
    keep_one_descriptor(answer)
    # Before the capabilities are dropped: changing the user needs one.
    _leave_superuser()
    if sys.platform.startswith("linux"):
        drop_capabilities()
        keep_from_debuggers()
    if "landlock" in parts:
        landlock()
    # The limit is in full seconds.
    cpu = max(1, int(seconds + 0.999))
    # A program can catch the signal of the first limit, not that of the second.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for limit in ("FSIZE", "CORE", "NPROC", "NOFILE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    if "seccomp" in parts:
        # Last: the steps above need calls that the filter refuses.
        seccomp(answer)
    sys.addaudithook(refuse)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: no process, no socket, no file."""
    if event.startswith(REFUSED_EVENTS) and event not in ALLOWED_EVENTS:
        raise PermissionError(f"{event} is refused")


def _leave_superuser() -> None:
    """Become the user nobody.

    In a namespace without such a user, the superuser's rights are dropped all the same
    (``drop_capabilities``).
    """
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


NEEDED = ("landlock", "seccomp")

# prctl
DEATH_SIGNAL, DUMPABLE, SECCOMP, NO_NEW_PRIVILEGES = 1, 4, 22, 38
FILTER, KILLED = 2, 9
# Landlock, the same numbers on every architecture.
CREATE_RULESET, RESTRICT_SELF, ASK_VERSION = 444, 446, 1
# The rights of each version: a kernel refuses a bit that it does not know.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
NETWORK_RIGHTS, SCOPES = 0b11, 0b11
FIRST_WITH_NETWORK, FIRST_WITH_SCOPES = 4, 6
# capset
CAPABILITY_VERSION = 0x20080522

# The calls that computing in memory needs, by their numbers on x86_64 and on aarch64. A call is
# listed because Python, NumPy or pandas make it, not because it is harmless.
CALL_NUMBERS: dict[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "close": (3, 57),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
}
CALLS: dict[str, dict[str, int]] = {
    machine: {
        name: number for name, both in CALL_NUMBERS.items() if (number := both[at]) is not None
    }
    for at, machine in enumerate(("x86_64", "aarch64"))
}
# Calls whose arguments are checked.
WRITE = {"x86_64": 1, "aarch64": 64}
# ``mmap`` and ``mprotect``.
MAPPING = {"x86_64": (9, 10), "aarch64": (222, 226)}
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000
# PROT_EXEC: memory that was written must never run.
EXECUTABLE = 4

# BPF: load a word of the call, jump if equal, jump if a bit is set, return.
LOAD, EQUAL, BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, ARCH, FIRST, THIRD = 0, 4, 16, 32
ALLOW, KILL, DENY = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM


class NotFenced(OSError):
    """The kernel did not grant a part of the fence; nothing may run."""


def keep_one_descriptor(descriptor: int) -> None:
    """Point the standard streams to nothing, and close every other descriptor except
    ``descriptor``.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    # A descriptor that is open before the fence stays open behind it.
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, _most_descriptors())


def _most_descriptors() -> int:
    """One more than the highest open descriptor, or the limit where no folder lists them."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError, ValueError):
            return max(int(entry.name) for entry in os.scandir(folder)) + 1
    import resource

    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20)


def drop_capabilities() -> None:
    """Drop all capabilities: a namespace of its own gives a process every one of them."""
    library = _library()
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    if library.capset(header, bytes(24)) != 0:
        raise NotFenced(ctypes.get_errno(), "capset")


def keep_from_debuggers() -> None:
    """No core dump, no tracing, no new rights by a program file; the process dies with its
    parent.
    """
    for option, value in ((NO_NEW_PRIVILEGES, 1), (DUMPABLE, 0), (DEATH_SIGNAL, KILLED)):
        _prctl(option, value)


def landlock() -> int:
    """Remove every right on files, irrevocably; returns the version of Landlock.

    Raises ``NotFenced`` where the kernel has none, or where a file can still be opened.
    """
    library = _library()
    # Sizes with their type: a bare int is passed as 32 bits without a signature.
    version = library.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)
    if version < 1:
        raise NotFenced(ctypes.get_errno(), "the kernel has no Landlock")
    files = (1 << FILE_RIGHTS[min(version, max(FILE_RIGHTS))]) - 1
    network = NETWORK_RIGHTS if version >= FIRST_WITH_NETWORK else 0
    scopes = SCOPES if version >= FIRST_WITH_SCOPES else 0
    # As long as the structure was in that version: an older kernel knows no later fields.
    size = 24 if scopes else 16 if network else 8
    rules = struct.pack("QQQ", files, network, scopes)
    ruleset = library.syscall(CREATE_RULESET, rules, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise NotFenced(ctypes.get_errno(), "Landlock accepts no rules")
    _prctl(NO_NEW_PRIVILEGES, 1)
    restricted = library.syscall(RESTRICT_SELF, ruleset, 0)
    reason = ctypes.get_errno()
    os.close(ruleset)
    if restricted != 0:
        raise NotFenced(reason, "Landlock does not work")
    _must_fail("Landlock", lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    return int(version)


def seccomp(answer: int) -> None:
    """Allow the calls of ``CALLS`` and writing to the descriptor ``answer``; refuse the rest,
    irrevocably.

    Raises ``NotFenced`` where the kernel or the architecture has no filter.
    """
    program = filter_of(architecture(), answer)
    buffer = ctypes.create_string_buffer(program)
    filter_struct = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    _prctl(NO_NEW_PRIVILEGES, 1)
    _prctl(SECCOMP, FILTER, filter_struct)
    # Signal 0 has no effect, but its call is not on the list.
    _must_fail("seccomp", lambda: os.kill(0, 0))


def filter_of(machine: str, answer: int) -> bytes:
    """The BPF program as bytes, 8 an instruction."""
    # Calls have other numbers on other architectures: under a foreign one the list would allow
    # anything.
    lines = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, ARCHITECTURE[machine]), (RETURN, 0, 0, KILL)]
    lines += [(LOAD, 0, 0, NUMBER)]
    if machine == "x86_64":
        # The same calls by other numbers, which would pass as calls not on the list.
        lines += [(BIT, 0, 1, X32), (RETURN, 0, 0, KILL)]
    lines += [
        (EQUAL, 0, 4, WRITE[machine]),
        (LOAD, 0, 0, FIRST),
        (EQUAL, 0, 1, answer),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, DENY),
    ]
    for number in MAPPING[machine]:
        lines += [
            (EQUAL, 0, 4, number),
            (LOAD, 0, 0, THIRD),
            (BIT, 0, 1, EXECUTABLE),
            (RETURN, 0, 0, DENY),
            (RETURN, 0, 0, ALLOW),
        ]
    for number in CALLS[machine].values():
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    lines += [(RETURN, 0, 0, DENY)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def architecture() -> str:
    """The architecture of this process. Raises ``NotFenced`` where its calls are unknown."""
    if not sys.platform.startswith("linux"):
        raise NotFenced(errno.ENOSYS, f"{sys.platform} has no seccomp")
    machine = os.uname().machine
    if machine not in ARCHITECTURE or struct.calcsize("P") != 8:
        raise NotFenced(errno.ENOSYS, f"the calls of {machine} are unknown")
    return machine


def _must_fail(part: str, attempt: Callable[[], object]) -> None:
    """Test a part of the fence before relying on it."""
    try:
        attempt()
    except PermissionError:
        return
    except OSError as error:
        raise NotFenced(error.errno, f"{part} does not work") from error
    raise NotFenced(0, f"{part} does not work")


def _library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    try:
        library.syscall.restype = ctypes.c_long
        library.prctl, library.capset  # noqa: B018
    except AttributeError as error:
        raise NotFenced(errno.ENOSYS, f"{sys.platform} has no such calls") from error
    return library


def _prctl(option: int, *values: Any) -> None:
    # The kernel reads five longs, and refuses unless the unused ones are 0.
    arguments = [ctypes.c_ulong(v) if isinstance(v, int) else v for v in (*values, 0, 0, 0, 0)[:4]]
    if _library().prctl(option, *arguments) != 0:
        raise NotFenced(ctypes.get_errno(), f"prctl {option}")


def probe() -> dict[str, str | None]:
    """Fence this process irrevocably, except for its standard output.

    Returns by part why it does not work here, ``None`` where it does.
    """
    return {"landlock": _why_not(landlock), "seccomp": _why_not(lambda: seccomp(1))}


def _why_not(part: Callable[[], object]) -> str | None:
    try:
        part()
    except OSError as error:
        # The number's text where the kernel replied; else only the sentence.
        meaning = os.strerror(error.errno) if error.errno else ""
        return f"{error.strerror} ({meaning})" if meaning else str(error.strerror)
    return None


if __name__ == "__main__":
    os.write(1, json.dumps(probe()).encode())
    os._exit(0)
