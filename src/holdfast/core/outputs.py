"""A file that the user named as output: what may be written there.

Every command asks ``checked_output`` before its work, and writes inside ``writing`` (of
``core/outputs.py``) after it. Files that Holdfast names itself, inside a run's folder, go
through ``core/files.py``.

A file that the user named as output, once it was checked: how it is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.errors import RunError
from holdfast.core.files import disk_errors, sync

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# As many as Linux follows.
MOST_LINKS = 40
# Bytes that are written to see whether a disk takes any: a block of most file systems.
TRIED = 4096
DESCRIPTOR = re.compile(r"/dev/(?:stdout|stderr|fd/(\d+))|/proc/(?:self|thread-self|\d+)/fd/(\d+)")
ANOTHER = "Name another file, or make room where this one is."


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that may be written: ``path`` as the user named it.

    ``place`` is the regular file that is replaced whole once everything is written; ``None`` where
    the output is written through: a pipe, a terminal, a device, or the open ``descriptor``.
    """

    path: Path
    place: Path | None = None
    descriptor: int | None = None
    force: bool = False


def checked_output(
    path: Path, inputs: Sequence[Path | int] = (), *, force: bool = False
) -> OutputFile:
    """Refuse, before any work is done, an output that cannot or must not be written.

    Parameters
    ----------
    path : as the user named it. A link is followed: what it points to is written, and the link
        stays. A pipe, a terminal or a character device is written through and needs no ``force``,
        since it holds nothing that could be lost.
    inputs : what is being read: files, folders (everything in them), or descriptors. They are never
        written over, however they are spelled: the same file is known by its device and number.
    force : whether another file that exists may be replaced.

    Raises ``RunError`` for an input, a file that exists, a folder, a block device, a socket, a link
    that leads nowhere or in a loop, a folder that is missing; ``MachineError`` where the folder
    takes no new file, which is tried.
    """
    if "\0" in str(path):
        raise RunError(str(path), "has a NUL character, which no path can have", None, ANOTHER)
    with disk_errors(path, ANOTHER):
        end = _end_of_links(path)
        number = _descriptor(end)
        if number is not None:
            try:
                access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
            except OSError:
                raise RunError(str(path), "is not open", None, ANOTHER) from None
            if access == os.O_RDONLY:
                raise RunError(str(path), "is open for reading only", None, ANOTHER)
            return OutputFile(path, descriptor=number)
        try:
            found = end.stat()
        except (FileNotFoundError, NotADirectoryError):
            return _new(path, end)
        return _existing(path, end, found, inputs, force)


def _end_of_links(path: Path) -> Path:
    end = path
    for _ in range(MOST_LINKS):
        if _descriptor(end) is not None or not end.is_symlink():
            return end
        end = end.parent / end.readlink()
    raise RunError(str(path), "is a link that leads in a loop", None, ANOTHER)


def _descriptor(path: Path) -> int | None:
    """The number of the open file that a path such as ``/dev/stdout`` stands for."""
    found = DESCRIPTOR.fullmatch(str(path))
    if found is None:
        return None
    if path.parts[1] != "dev" and path.parts[2] not in ("self", "thread-self", str(os.getpid())):
        return None
    given = found[1] or found[2]
    return int(given) if given else (1 if path.name == "stdout" else 2)


def _new(path: Path, end: Path) -> OutputFile:
    if path.is_symlink():
        raise RunError(
            str(path),
            f"is a link to {end}, which does not exist",
            None,
            "Name the file itself, or another one.",
        )
    if not end.parent.is_dir():
        raise RunError(
            str(path),
            "is in a folder that does not exist",
            None,
            "Name a file in a folder that is there.",
        )
    _try(end.parent)
    return OutputFile(path, end)


def _existing(
    path: Path, end: Path, found: os.stat_result, inputs: Sequence[Path | int], force: bool
) -> OutputFile:
    mode = found.st_mode
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode))
    if kind is not None:
        raise RunError(str(path), f"is {kind}", None, "Name a file in a folder that is there.")
    if not stat.S_ISREG(found.st_mode):
        if not os.access(end, os.W_OK):
            raise RunError(str(path), "may not be written to", None, ANOTHER)
        return OutputFile(path)
    read = _read_here(end, found, inputs)
    if read is not None:
        where = "" if isinstance(read, int) or str(read) == str(path) else f" {read}"
        raise RunError(
            str(path),
            f"is the input{where}",
            None,
            "Choose another file: what is being read is not written over, even with --force.",
        )
    if not force:
        raise RunError(
            str(path),
            "exists already",
            None,
            "Choose another file, or write over this one with --force.",
        )
    # In a folder such as /tmp only its owner replaces a file; that would be told too late.
    folder, me = end.parent.stat(), os.geteuid()
    if folder.st_mode & stat.S_ISVTX and me not in (0, found.st_uid, folder.st_uid):
        raise RunError(str(path), "belongs to somebody else", None, ANOTHER)
    _try(end.parent)
    return OutputFile(path, end, force=True)


def _read_here(end: Path, found: os.stat_result, inputs: Sequence[Path | int]) -> Path | int | None:
    """The input that the file is, or that holds it."""
    for given in inputs:
        try:
            status = os.fstat(given) if isinstance(given, int) else given.stat()
        # An input that is missing, or has no possible name, is refused by whoever reads it.
        except (OSError, ValueError):
            continue
        if (status.st_dev, status.st_ino) == (found.st_dev, found.st_ino):
            return given
        if isinstance(given, int) or not stat.S_ISDIR(status.st_mode):
            continue
        if end.resolve().is_relative_to(given.resolve()):
            return given
    return None


def _try(folder: Path) -> None:
    """Make a file there and take it away: modes alone say nothing of a read-only or full disk."""
    opened, path = new_beside(folder)
    try:
        os.write(opened, bytes(TRIED))
    finally:
        os.close(opened)
        path.unlink()


def new_beside(folder: Path) -> tuple[int, Path]:
    """A new file of a name of its own, open for writing, with the mode that the umask gives."""
    path = folder / f".holdfast-{secrets.token_hex(6)}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, 0o666), path


NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextlib.contextmanager
def writing(output: OutputFile) -> Iterator[io.RawIOBase]:
    """A binary stream into ``output``: a regular file is there whole or not at all.

    A new file gets the mode that the umask gives; one that is replaced keeps its mode, and its
    owner where the system allows it. Raises ``MachineError`` where the disk is full or the reader
    of a pipe has gone, ``RunError`` where a file has appeared meanwhile.
    """
    if output.place is not None:
        with _replacing(output, output.place) as stream:
            yield stream
        return
    if output.descriptor is not None:
        # What was printed before stands before what is written now.
        sys.stdout.flush()
        sys.stderr.flush()
    with disk_errors(output.path, ANOTHER):
        if output.descriptor is not None:
            # A copy: closing the stream must leave the user's standard output open.
            opened = os.dup(output.descriptor)
        else:
            opened = os.open(output.path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    with _Target(opened, output.path) as stream:
        yield stream


class _Target(io.RawIOBase):
    """A descriptor whose refusals are told with the name that the user gave. A write is whole."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: ReadableBuffer) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        with disk_errors(self._path, ANOTHER):
            while left:
                # Into a pipe the system may take less than it is given.
                left = left[os.write(self._descriptor, left) :]
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            # Some file systems say at last here that there was no room.
            with disk_errors(self._path, ANOTHER):
                os.close(self._descriptor)


@contextlib.contextmanager
def _replacing(output: OutputFile, place: Path) -> Iterator[io.RawIOBase]:
    with disk_errors(output.path, ANOTHER):
        opened, beside = new_beside(place.parent)
    try:
        with _Target(opened, output.path) as stream:
            _like(opened, place)
            yield stream
            with disk_errors(output.path, ANOTHER):
                os.fsync(opened)
        with disk_errors(output.path, ANOTHER):
            _put(beside, place, output)
            sync(place.parent)
    finally:
        beside.unlink(missing_ok=True)


def _like(opened: int, place: Path) -> None:
    """Mode and owner of the file that is replaced, if one is."""
    with contextlib.suppress(FileNotFoundError):
        found = place.stat()
        with contextlib.suppress(PermissionError):
            os.fchown(opened, found.st_uid, found.st_gid)
        # Not the bits that let others run it as somebody else.
        os.fchmod(opened, found.st_mode & 0o777)


def _put(beside: Path, place: Path, output: OutputFile) -> None:
    if output.force:
        beside.replace(place)
        return
    try:
        # Unlike a rename it fails where another process has made the file meanwhile.
        place.hardlink_to(beside)
    except OSError as error:
        if error.errno not in (*NO_LINKS, errno.EEXIST):
            raise
        if os.path.lexists(place):
            raise RunError(
                str(output.path),
                "has been made by somebody else meanwhile",
                None,
                "Run the command again with another file.",
            ) from None
        beside.replace(place)
