"""Reading files of a run folder that anybody may have made: no link is followed, nothing that could
block is opened, nothing of any size is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from holdfast.core.errors import RunError
from holdfast.core.input_errors import door

# The result of a run over a thousand classes has 20 MB.
LARGEST = 64_000_000
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def opened(path: Path) -> int:
    """A descriptor of an ordinary file at ``path``; whoever asks closes it.

    Raises ``OSError`` where there is none or a link stands in its place, ``RunError`` where it is
    no ordinary file.
    """
    descriptor = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(str(path), "is not a file", None, "Remove it from the run's folder.")
    return descriptor


def read_whole(path: Path, most: int = LARGEST) -> bytes:
    """All bytes of a file of the run. Raises ``RunError`` where it cannot be read or is larger."""
    with door(str(path), RunError, remedy="Restore it from a copy."):
        descriptor = opened(path)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size > most:
                rule = f"is larger than the {most:,} bytes that are read of such a file"
                raise RunError(str(path), rule, size, "Take it out of the run's folder.")
            return file.read(most)


def read_end(path: Path, most: int) -> bytes:
    """The last bytes of a file, at most so many; raises as ``opened`` does."""
    descriptor = opened(path)
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, most, max(0, size - most))
    finally:
        os.close(descriptor)


def refuse_links(run: Path, names: Iterable[str]) -> None:
    """Raise ``RunError`` where one of these files of a run is a link: what it points to may be
    anybody's, and would be shown."""
    for name in names:
        if (run / name).is_symlink():
            raise RunError(
                str(run / name),
                "is a link, where a run has a file of its own",
                None,
                "Put what it points to in its place, or remove the link.",
            )
