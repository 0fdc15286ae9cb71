"""Checks and writing of an output file that the user named.

Every command calls ``check_output`` before its work, and writes inside ``open_output`` after it.
Files that Holdfast names inside a run's folder go through ``core/files.py``.
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
MAX_LINKS = 40
# Bytes that are written to see whether a disk takes any: a block of most file systems.
TRIAL_BYTES = 4096
DESCRIPTOR_PATH = re.compile(
    r"/dev/(?:stdout|stderr|fd/(\d+))|/proc/(?:self|thread-self|\d+)/fd/(\d+)"
)
OTHER_FILE = "Name another file, or free some space where this one is."


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that may be written: ``path`` as the user named it.

    ``replaces`` is the regular file that is replaced once everything is written; ``None`` where
    output is written directly: a pipe, a terminal, a device, or the open ``descriptor``.
    """

    path: Path
    replaces: Path | None = None
    descriptor: int | None = None
    force: bool = False


def check_output(
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
        raise RunError(str(path), "has a NUL character, which no path can have", None, OTHER_FILE)
    with disk_errors(path, OTHER_FILE):
        target = _end_of_links(path)
        number = _descriptor_number(target)
        if number is not None:
            try:
                access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
            except OSError:
                raise RunError(str(path), "is not open", None, OTHER_FILE) from None
            if access == os.O_RDONLY:
                raise RunError(str(path), "is open for reading only", None, OTHER_FILE)
            return OutputFile(path, descriptor=number)
        try:
            status = target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return _check_new(path, target)
        return _check_existing(path, target, status, inputs, force)


def _end_of_links(path: Path) -> Path:
    end = path
    for _ in range(MAX_LINKS):
        if _descriptor_number(end) is not None or not end.is_symlink():
            return end
        end = end.parent / end.readlink()
    raise RunError(str(path), "is a circular link", None, OTHER_FILE)


def _descriptor_number(path: Path) -> int | None:
    """The open descriptor that a path such as ``/dev/stdout`` names."""
    match = DESCRIPTOR_PATH.fullmatch(str(path))
    if match is None:
        return None
    if path.parts[1] != "dev" and path.parts[2] not in ("self", "thread-self", str(os.getpid())):
        return None
    given = match[1] or match[2]
    return int(given) if given else (1 if path.name == "stdout" else 2)


def _check_new(path: Path, end: Path) -> OutputFile:
    if path.is_symlink():
        rule = f"is a link to {end}, which does not exist"
        raise RunError(str(path), rule, None, "Name the file itself, or another one.")
    if not end.parent.is_dir():
        rule = "is in a folder that does not exist"
        raise RunError(str(path), rule, None, "Name a file in a folder that is there.")
    _check_writable(end.parent)
    return OutputFile(path, end)


def _check_existing(
    path: Path, end: Path, status: os.stat_result, inputs: Sequence[Path | int], force: bool
) -> OutputFile:
    mode = status.st_mode
    special_files = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}
    special_file = special_files.get(stat.S_IFMT(mode))
    if special_file is not None:
        raise RunError(
            str(path), f"is {special_file}", None, "Name a file in a folder that is there."
        )
    if not stat.S_ISREG(status.st_mode):
        if not os.access(end, os.W_OK):
            raise RunError(str(path), "may not be written to", None, OTHER_FILE)
        return OutputFile(path)
    matching_input = _matching_input(end, status, inputs)
    if matching_input is not None:
        where = (
            ""
            if isinstance(matching_input, int) or str(matching_input) == str(path)
            else f" {matching_input}"
        )
        remedy = "Choose another file: the input is never overwritten, even with --force."
        raise RunError(str(path), f"is the input{where}", None, remedy)
    if not force:
        remedy = "Choose another file, or overwrite this one with --force."
        raise RunError(str(path), "exists already", None, remedy)
    # In a folder such as /tmp only its owner replaces a file; that would be told too late.
    folder, me = end.parent.stat(), os.geteuid()
    if folder.st_mode & stat.S_ISVTX and me not in (0, status.st_uid, folder.st_uid):
        raise RunError(str(path), "belongs to another user", None, OTHER_FILE)
    _check_writable(end.parent)
    return OutputFile(path, end, force=True)


def _matching_input(
    end: Path, status: os.stat_result, inputs: Sequence[Path | int]
) -> Path | int | None:
    """The input that is the file or holds it."""
    for given in inputs:
        try:
            input_status = os.fstat(given) if isinstance(given, int) else given.stat()
        # An input that is missing, or has no possible name, is refused by whoever reads it.
        except (OSError, ValueError):
            continue
        if (input_status.st_dev, input_status.st_ino) == (status.st_dev, status.st_ino):
            return given
        if isinstance(given, int) or not stat.S_ISDIR(input_status.st_mode):
            continue
        if end.resolve().is_relative_to(given.resolve()):
            return given
    return None


def _check_writable(folder: Path) -> None:
    """Make a file there and remove it: modes do not show a read-only or full disk."""
    descriptor, path = new_partial_file(folder)
    try:
        os.write(descriptor, bytes(TRIAL_BYTES))
    finally:
        os.close(descriptor)
        path.unlink()


def new_partial_file(folder: Path) -> tuple[int, Path]:
    """A new file with a unique name, open for writing, with the mode that the umask gives."""
    path = folder / f".holdfast-{secrets.token_hex(6)}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, 0o666), path


NO_HARD_LINKS = (
    errno.EPERM,
    errno.EACCES,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
)


@contextlib.contextmanager
def open_output(output: OutputFile) -> Iterator[io.RawIOBase]:
    """A binary stream into ``output``: a regular file is written completely or not at all.

    A new file gets the mode that the umask gives; a replaced one keeps its mode, and its owner
    where the system allows it. Raises ``MachineError`` if the disk is full or the reader of a pipe
    has gone, ``RunError`` if a file has appeared meanwhile.
    """
    if output.replaces is not None:
        with _open_replacement(output, output.replaces) as stream:
            yield stream
        return
    if output.descriptor is not None:
        # What was printed before stands before what is written now.
        sys.stdout.flush()
        sys.stderr.flush()
    with disk_errors(output.path, OTHER_FILE):
        if output.descriptor is not None:
            # A copy: closing the stream must leave the user's standard output open.
            descriptor = os.dup(output.descriptor)
        else:
            descriptor = os.open(output.path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    with _OutputStream(descriptor, output.path) as stream:
        yield stream


class _OutputStream(io.RawIOBase):
    """A descriptor whose errors name the file as the user did. Each write is complete."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: ReadableBuffer) -> int:
        remaining = memoryview(data).cast("B")
        size = len(remaining)
        with disk_errors(self._path, OTHER_FILE):
            while remaining:
                # Into a pipe the system may take less than it is given.
                remaining = remaining[os.write(self._descriptor, remaining) :]
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            # Some file systems say at last here that there was no room.
            with disk_errors(self._path, OTHER_FILE):
                os.close(self._descriptor)


@contextlib.contextmanager
def _open_replacement(output: OutputFile, target: Path) -> Iterator[io.RawIOBase]:
    with disk_errors(output.path, OTHER_FILE):
        descriptor, partial = new_partial_file(target.parent)
    try:
        with _OutputStream(descriptor, output.path) as stream:
            _copy_mode_and_owner(descriptor, target)
            yield stream
            with disk_errors(output.path, OTHER_FILE):
                os.fsync(descriptor)
        with disk_errors(output.path, OTHER_FILE):
            _move_into_place(partial, target, output)
            sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _copy_mode_and_owner(descriptor: int, target: Path) -> None:
    """Copy the mode and owner of the file that is replaced, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        status = target.stat()
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        # Not the bits that let others run it as somebody else.
        os.fchmod(descriptor, status.st_mode & 0o777)


def _move_into_place(partial: Path, target: Path, output: OutputFile) -> None:
    if output.force:
        partial.replace(target)
        return
    try:
        # Unlike a rename it fails where another process has made the file meanwhile.
        target.hardlink_to(partial)
    except OSError as error:
        if error.errno not in (*NO_HARD_LINKS, errno.EEXIST):
            raise
        if os.path.lexists(target):
            rule = "was made by another process meanwhile"
            remedy = "Run the command again with another file."
            raise RunError(str(output.path), rule, None, remedy) from None
        partial.replace(target)
