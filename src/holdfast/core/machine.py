"""Resources that the system gives this process: memory and processors.

A machine's free memory says little about a process in a container, in a batch job or behind
``ulimit``: each has its own limit, and the smallest applies.

Also: how many processes a launcher started to train together, and which of them this one is; and
bounds on time and memory for small foreign programs, such as a chat template.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from holdfast.core.errors import MachineError

MB = 1e6
# Version 1 of control groups writes no limit as the largest whole number of pages.
UNLIMITED = 2**60
ROOT = Path("/")
# Bytes of a page on x86 and most ARM kernels, in which ``statm`` counts.
PAGE = 4096
STATM = Path("/proc/self/statm")
# MB that are used, and that are mapped, measured with the smallest builds, those for processors
# alone. For torch it is that of a run that is ready to begin, less a fifth: the kernel ended the
# smallest one at 300 MB used, and at 370 it came to its plan.
IMPORT_MEMORY_MB = {"torch": (300, 560), "numpy": (10, 85)}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
THREADS_A_CORE = 8
# As many as the largest common machines have processors. Measured on 2: 256 threads multiply at
# less than half the speed of 1, and 1,024 at a tenth.
MIN_THREAD_LIMIT = 256


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """MB (10⁶ bytes) left under a limit, with a description of the limit. ``total_mb`` is the limit
    itself; ``counts_mapped``: it counts mapped memory, not used memory."""

    left_mb: float
    description: str
    total_mb: float = math.inf
    counts_mapped: bool = False


def memory_limits(root: Path = ROOT) -> list[MemoryLimit]:
    """Every limit on this process's memory except the machine's own: those of its control groups
    (versions 1 and 2, the group itself and all above it) and of ``ulimit -v`` and ``-d``.

    File pages that the kernel can free at once do not count as used by a group. ``root`` is where
    ``proc`` and ``sys`` are found.
    """
    return [*_group_limits(root), *_process_limits(root)]


def file_pages_mb(root: Path = ROOT) -> float:
    """MB of files (programs, libraries) that this process holds and the kernel can free."""
    return 1024 * _status(root).get("RssFile", 0) / MB


def return_freed_memory() -> None:
    """Give the memory that this process freed back to the system. glibc keeps it for tensors of the
    same sizes, beside which the next model would need its own; other allocators return it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def usable_cores(root: Path = ROOT) -> int:
    """Processors that this process may use: its affinity, or fewer if a control group's quota is
    lower (a quota of 1.5 processors is 2)."""
    affine = getattr(os, "sched_getaffinity", None)
    cores = len(affine(0)) if affine is not None else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas(root))]))


def processor_name(root: Path = ROOT) -> str:
    """The model of the processor, else its architecture."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def refuse_low_memory(library: str, root: Path = ROOT) -> None:
    """Refuse to load ``library`` (``torch``, ``numpy``) if a limit of this process leaves less
    memory than its import needs. The import would not fail but end the process.

    A machine with little free memory is not refused: it may have swap. Raises ``MachineError``.
    """
    if library in sys.modules:
        return
    used_mb, mapped_mb = IMPORT_MEMORY_MB[library]
    for limit in memory_limits(root):
        required_mb = mapped_mb if limit.counts_mapped else used_mb
        if limit.left_mb < required_mb:
            rule = (
                f"may use only {limit.left_mb:,.0f} MB more ({limit.description}), but loading "
                f"{library} takes {required_mb:,} MB"
            )
            raise MachineError("this process", rule, None, "Raise that limit.")


def max_threads(root: Path = ROOT) -> int:
    """The largest number of threads that a run may use here: more would only wait for each other.

    A recipe from a larger machine still runs: up to ``MIN_THREAD_LIMIT`` are accepted anywhere.
    """
    return max(MIN_THREAD_LIMIT, THREADS_A_CORE * usable_cores(root))


def refuse_too_many_threads(name: str, threads: int, root: Path = ROOT) -> None:
    """Raise ``MachineError`` if ``threads``, which ``name`` requests, exceeds ``max_threads``."""
    most = max_threads(root)
    if threads <= most:
        return
    cores = usable_cores(root)
    usable = "1 core is" if cores == 1 else f"{cores} cores are"
    rule = (
        f"asks for more threads than this machine can use: {usable} usable, and at most "
        f"{most} threads are accepted"
    )
    raise MachineError(name, rule, threads, f"Set it to {cores}, or leave it out.")


def check_thread_variables(environment: Mapping[str, str]) -> None:
    """Refuse too many threads in the environment before a library reads it: OpenMP ends the process
    if it cannot start its threads. Raises ``MachineError``, which names the variable."""
    for name in THREAD_VARIABLES:
        value = environment.get(name, "").strip()
        if value.isdigit():
            refuse_too_many_threads(name, int(value))


def _process_limits(root: Path) -> Iterator[MemoryLimit]:
    # Address space for one, private memory for the other, in kB.
    for limit, used, option in (
        (resource.RLIMIT_AS, "VmSize", "-v"),
        (resource.RLIMIT_DATA, "VmData", "-d"),
    ):
        allowed = resource.getrlimit(limit)[0]
        used_kb = _status(root).get(used)
        if allowed != resource.RLIM_INFINITY and used_kb is not None:
            left = max(0.0, (allowed - 1024 * used_kb) / MB)
            words = f"ulimit {option} of {allowed / MB:,.0f} MB"
            yield MemoryLimit(left, words, allowed / MB, counts_mapped=limit == resource.RLIMIT_AS)


def _status(root: Path) -> dict[str, int]:
    """The sizes of this process, in kB."""
    text = _read(root / "proc/self/status") or ""
    return {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def _group_limits(root: Path) -> Iterator[MemoryLimit]:
    for folder, group, version in _control_groups("memory", root):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        used = _number(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes"))
        for name in names:
            allowed = _number(folder / name)
            if allowed is None or used is None or allowed >= UNLIMITED:
                continue
            left = max(0.0, (allowed - used + _reclaimable_bytes(folder)) / MB)
            words = f"{name} of {allowed / MB:,.0f} MB of the control group {group}"
            yield MemoryLimit(left, words, allowed / MB)


def _reclaimable_bytes(folder: Path) -> int:
    """Bytes of file pages that the group's use counts and that the kernel frees when needed."""
    entries = re.findall(r"^(\w+) (\d+)$", _read(folder / "memory.stat") or "", re.M)
    stat = {name: int(size) for name, size in entries}
    # Version 1 tells those of the groups below apart, and its use includes them.
    names = ("inactive_file", "active_file")
    return sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in names)


def _quotas(root: Path) -> Iterator[float]:
    for folder, _, version in _control_groups("cpu", root):
        if version == 2:
            limits = (_read(folder / "cpu.max") or "max").split()
            if len(limits) == 2 and all(part.isdigit() for part in limits) and int(limits[1]):
                yield int(limits[0]) / int(limits[1])
        else:
            quota, period = (_number(folder / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
            if quota is not None and period and quota > 0:
                yield quota / period


def _control_groups(controller: str, root: Path) -> Iterator[tuple[Path, str, int]]:
    """The control group of this process and those above it, as far as they are visible: folder,
    name, version."""
    paths = _group_paths(root)
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        mount_part, _, filesystem_part = line.partition(" - ")
        fields, (system, _, options) = (
            mount_part.split(),
            [*filesystem_part.split(), "", "", ""][:3],
        )
        version = {"cgroup2": 2, "cgroup": 1}.get(system)
        if version is None or (version == 1 and controller not in options.split(",")):
            continue
        path = paths.get("" if version == 2 else controller)
        if path is None or len(fields) < 5:
            continue
        top = root / _unescape(fields[4]).lstrip("/")
        path_parts = _path_below_mount(path, _unescape(fields[3]))
        for depth in range(len(path_parts), -1, -1):
            folder = top.joinpath(*path_parts[:depth])
            if folder.is_dir():
                yield folder, "/" + "/".join(path_parts[:depth]), version


def _group_paths(root: Path) -> dict[str, str]:
    """Controllers to the path of this process's group; that of version 2 has an empty name."""
    group_paths = {}
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        group_paths.update(dict.fromkeys(names.split(","), path))
    return group_paths


def _path_below_mount(path: str, mounted: str) -> list[str]:
    """The parts of a group's path below the mount. A group outside it is hidden; then only the
    mount itself is read."""
    below = path if mounted == "/" else path.removeprefix(mounted)
    if ".." in path.split("/") or (mounted != "/" and below == path):
        return []
    if mounted != "/" and below and not below.startswith("/"):
        return []
    return [part for part in below.split("/") if part]


def _unescape(field: str) -> str:
    """A field of ``mountinfo``, where blanks are octal."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), field)


def _number(path: Path) -> int | None:
    """``None`` if the file is missing or says ``max``."""
    with contextlib.suppress(ValueError):
        return int(_read(path) or "")
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None


RENDEZVOUS_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")


def process_count() -> int:
    """The number of processes that train together: ``WORLD_SIZE``, 1 without a launcher. Raises as
    ``rank``."""
    return _rank_and_count()[1]


def rank() -> int:
    """The number of this process among them: ``RANK``, from 0.

    Raises ``MachineError`` if the environment holds no valid pair: a process that believes it is
    the second leaves the writing, and the lock of its folder, to a first that does not exist.
    """
    return _rank_and_count()[0]


def check_launch() -> None:
    """Raise ``MachineError`` if the environment describes several processes that could not find
    each other, or holds no pair as ``rank`` needs."""
    _, count = _rank_and_count()
    missing = [name for name in RENDEZVOUS_VARIABLES if not os.environ.get(name)]
    if count > 1 and missing:
        raise MachineError(
            f"WORLD_SIZE={count}",
            f"is set without {' and '.join(missing)}, where the processes meet",
            None,
            "Start several processes with torchrun or accelerate launch; for a single one unset "
            "RANK and WORLD_SIZE.",
        )


def _rank_and_count() -> tuple[int, int]:
    process_rank, count = _integer_variable("RANK", 0), _integer_variable("WORLD_SIZE", 1)
    if count < 1 or process_rank >= count:
        raise MachineError(
            "RANK and WORLD_SIZE",
            "do not give the number of a process among several",
            f"{process_rank} of {count}",
            "Start several processes with torchrun or accelerate launch; for a single one unset "
            "both.",
        )
    return process_rank, count


def _integer_variable(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    # Bounded, as Python refuses to convert thousands of digits with an error of its own.
    if text.isdecimal() and len(text) <= len(str(2**31)):
        return int(text)
    remedy = "torchrun and accelerate launch set it; for a single process unset it."
    raise MachineError(name, "is not a whole number of processes", text, remedy)


class OverrunError(Exception):
    """A computation did not end in its time."""


@contextlib.contextmanager
def resource_bounds(seconds: float, memory: int) -> Iterator[None]:
    """End the block after ``seconds``, and refuse it more than ``memory`` further bytes.

    Time is bounded in the main thread, and memory on Linux; elsewhere there is no such bound. A
    long call of a C library ends only when the call returns.

    Raises ``OverrunError`` or ``MemoryError``.
    """
    with _memory_bound(memory), _time_bound(seconds):
        yield


@contextlib.contextmanager
def _time_bound(seconds: float) -> Iterator[None]:
    # Only the main thread may set a signal's handler.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_overrun(number: int, frame: FrameType | None) -> None:
        raise OverrunError(f"did not end within {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, raise_overrun)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # There is one such timer in a process, and the program round us may have set it.
        signal.setitimer(signal.ITIMER_REAL, left, every)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory_bound(more: int) -> Iterator[None]:
    try:
        # The first field is what is mapped, which is what the limit counts; what is used is far
        # less.
        used = int(STATM.read_text().split()[0]) * PAGE
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (OSError, ValueError):
        yield
        return
    candidates = [limit for limit in (soft, hard, used + more) if limit != resource.RLIM_INFINITY]
    # The soft limit alone: a process cannot raise a hard one again.
    resource.setrlimit(resource.RLIMIT_AS, (min(candidates), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
