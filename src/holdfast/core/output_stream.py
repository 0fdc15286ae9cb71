"""A file that the user named as output, once it was checked: how it is written."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.core.errors import RunError
from holdfast.core.files import disk_errors, sync
from holdfast.core.outputs import ANOTHER, OutputFile, new_beside

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

    def write(self, data: Any) -> int:
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
