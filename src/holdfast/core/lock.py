"""A lock that lets one process at a time write into a folder, and tells others who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TypedDict

from holdfast.core.decisions import notify
from holdfast.core.errors import RunError
from holdfast.core.files import disk_errors
from holdfast.core.printable import printable
from holdfast.core.records import Decision

LOCK_FILE = ".lock"
# A lock that was let go between opening the file and asking for it is asked for again.
MAX_ATTEMPTS = 100
# The holder writes its name right after it has the lock.
PATIENCE_S = 0.5
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
REMEDY = (
    "Wait for it, or stop it and continue with `holdfast train … --resume`. To start another run, "
    "choose another --out."
)
# The descriptors that this process holds locks by.
_HELD_DESCRIPTORS: set[int] = set()


class LockHolder(TypedDict):
    """What the lock file says of the process that holds it."""

    pid: int
    host: str
    since: datetime


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` until the block ends; other processes, and other threads, are refused.

    It is ``flock`` on ``folder/.lock``, so the system releases it when the process ends, however it
    ends: a file left by a killed process blocks nobody. The file names the holder, and is removed
    with the lock. A process that was forked inside does not hold it, and may outlive the holder.
    Where the file system has no such locks, the decision log says that nothing is locked.

    Raises ``RunError`` if another process holds it, ``MachineError`` if no file can be made there.
    """
    path, owner = folder / LOCK_FILE, os.getpid()
    with disk_errors(path):
        descriptor = _acquire(path)
    if descriptor is None:
        because = "the file system has no locks: let only one process at a time use this folder"
        notify(Decision("lock", f"{folder} is not locked", because, prominent=True))
        yield
        return
    _HELD_DESCRIPTORS.add(descriptor)
    try:
        yield
    finally:
        # A forked child that leaves this block has nothing to let go.
        if os.getpid() == owner:
            # Before the lock goes: a file that somebody else made is never taken away.
            with contextlib.suppress(OSError):
                if _is_same_file(descriptor, path):
                    path.unlink()
            _HELD_DESCRIPTORS.discard(descriptor)
            os.close(descriptor)


def refuse_locked(folder: Path) -> None:
    """Raise ``RunError`` if another process holds ``folder``; nothing is written."""
    path = folder / LOCK_FILE
    try:
        descriptor = _open_lock_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        # A shared lock: two who only ask do not refuse each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked_error(path, descriptor) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int | None:
    """The descriptor that holds the lock, or ``None`` where there are no locks."""
    for _ in range(MAX_ATTEMPTS):
        descriptor = _open_lock_file(path, os.O_RDWR | os.O_CREAT)
        try:
            if _try_lock(path, descriptor):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno not in UNSUPPORTED:
                raise
            path.unlink(missing_ok=True)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise RunError(
        str(path.parent), "is locked and unlocked by other processes again and again", None, REMEDY
    )


def _try_lock(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked_error(path, descriptor) from None
    # The last holder may have taken the file away after it was opened here.
    if not _is_same_file(descriptor, path):
        return False
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    except OSError:
        # A full disk: nothing is left of a run that never began.
        path.unlink(missing_ok=True)
        raise
    return True


def _open_lock_file(path: Path, flags: int) -> int:
    """Refuses a link or a pipe in place of the file: a folder from elsewhere may hold either."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(str(path), "is not a lock of Holdfast's", None, "Remove it.")
    return descriptor


def _is_same_file(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    return False


def _locked_error(path: Path, descriptor: int) -> RunError:
    holder, deadline = _read_holder(descriptor), time.monotonic() + PATIENCE_S
    while holder is None and time.monotonic() < deadline:
        time.sleep(0.02)
        holder = _read_holder(descriptor)
    holder_phrase = "another process"
    if holder is not None:
        here = holder["host"] == socket.gethostname()
        host = "" if here else f" on {printable(holder['host'], 80)}"
        holder_phrase = f"process {holder['pid']}{host} since {holder['since']:%Y-%m-%d %H:%M:%S}"
        if here and holder["pid"] == os.getpid():
            holder_phrase = "this process already, in another thread"
    return RunError(str(path.parent), f"is being written by {holder_phrase}", None, REMEDY)


def _read_holder(descriptor: int) -> LockHolder | None:
    """The holder that the file names; the file may be half written or not Holdfast's."""
    try:
        # A stranger's file may be of any size.
        record = json.loads(os.pread(descriptor, 1_000, 0))
        since = datetime.fromisoformat(record["since"])
        return {"pid": int(record["pid"]), "host": str(record["host"]), "since": since}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _close_in_child() -> None:
    """In a forked child: its copies of the descriptors would hold the locks after the parent ends.
    Closing one of several copies releases nothing."""
    for descriptor in _HELD_DESCRIPTORS:
        os.close(descriptor)
    _HELD_DESCRIPTORS.clear()


os.register_at_fork(after_in_child=_close_in_child)
