"""A temporary folder for Arrow files. Each file is removed with the object that maps it, and the
folder when the process ends; the next process removes the folder of a killed one."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import socket
import tempfile
import weakref
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.errors import MachineError
from holdfast.core.files import SCRATCH_FOLDER, disk_errors
from holdfast.core.input_errors import reason

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_NUMBERS = itertools.count()
# Locked while the process lives, so that no other process takes its folder for an abandoned one.
_LOCKS: list[int] = []
REMEDY = "Set TMPDIR to a folder that has room and that you may write to."


def scratch_file(stem: str, suffix: str = ".arrow") -> Path:
    """An unused path in the system's temporary folder (``TMPDIR``), never next to the user's file.
    The file is removed when this process ends normally or by an error.

    Raises ``MachineError`` where the folder that ``TMPDIR`` names cannot be used. No other folder
    is used instead.
    """
    return _scratch_folder(os.getpid()) / f"{stem}-{next(_NUMBERS)}{suffix}"


def map_stored_rows(path: Path) -> datasets.Dataset:
    """The rows of the Arrow stream in a scratch file, which is removed with them.

    Otherwise a program that predicts many times would fill the disk until it ends.
    """
    import datasets

    rows = datasets.Dataset.from_file(str(path))
    remove_with(rows, path)
    return rows


def write_batches(
    stem: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> datasets.Dataset:
    """The batches as memory-mapped rows on disk: memory holds one batch at a time."""
    import pyarrow as pa

    path = scratch_file(stem)
    with disk_errors(path), pa.ipc.new_stream(str(path), schema) as sink:
        for batch in batches:
            sink.write_batch(batch)
    return map_stored_rows(path)


def remove_with(owner: object, path: Path) -> None:
    """Remove a scratch file, or a folder of them, when ``owner`` is garbage-collected. A process
    that has mapped a file keeps its pages."""
    weakref.finalize(owner, _remove_file, path, os.getpid())


def _remove_file(path: Path, process: int) -> None:
    if os.getpid() != process:
        return
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@cache
def _scratch_folder(process: int) -> Path:
    # Named by process: a forked child must not remove its parent's files.
    base = _temporary_folder()
    # Remove the folders of killed processes on this machine. A held lock shows that a process is
    # alive; its number does not, since another process may have it by now. Folders of other
    # machines, on a shared disk, are kept.
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        scratch_entries = [entry for entry in entries if SCRATCH_FOLDER.fullmatch(entry.name)]
        removable = [entry.path for entry in scratch_entries if entry.name.split("-")[2] == _host()]
        for path in removable:
            with contextlib.suppress(OSError):
                _remove_abandoned(path)
    with disk_errors(base, REMEDY):
        folder = _make_locked_folder(base, process)
    atexit.register(_remove, folder, process)
    return folder


def _temporary_folder() -> Path:
    """The system's temporary folder. Python itself skips one that it cannot write to."""
    named = os.environ.get("TMPDIR")
    try:
        temporary_folder = tempfile.gettempdir()
        if named and Path(named).absolute() != Path(temporary_folder):
            with tempfile.TemporaryFile(dir=named) as trial_file:
                trial_file.write(b"room")
    except (OSError, ValueError) as error:
        folder_name = f"TMPDIR={named}" if named else "the folder for temporary files"
        rule = f"cannot hold temporary files: {reason(error)}"
        raise MachineError(folder_name, rule, None, REMEDY) from error
    return Path(temporary_folder)


def _make_locked_folder(base: Path, process: int) -> Path:
    """Create a folder and lock it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"holdfast-{process}-{_host()}-", dir=base))
        opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another process found it unlocked, and takes it for an abandoned one.
            os.close(opened)
            continue
        except OSError:
            # A file system without locks: no other process can lock the folder or remove it.
            os.close(opened)
            return folder
        # Another process may have removed it before the lock was taken.
        if folder.exists():
            _LOCKS.append(opened)
            return folder
        os.close(opened)


def _remove_abandoned(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(opened).st_uid != os.geteuid():
            return
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(opened)


@cache
def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _close_in_child() -> None:
    """Release the lock in a forked child, which may outlive this process."""
    for opened in _LOCKS:
        os.close(opened)
    _LOCKS.clear()


os.register_at_fork(after_in_child=_close_in_child)
