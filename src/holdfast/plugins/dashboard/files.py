"""Reading files of untrusted run folders: no link is followed, nothing that could block is opened,
sizes are limited; and reading new lines of an ``events.jsonl`` while it is being written.

A position in that file is ``OFFSET-CHECK``: the byte after the last complete line that was read,
and a checksum of the bytes before it. A resumed run truncates its file to a checkpoint and
continues: the offset may exist again, but after different lines, and the checksum shows that.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.core.errors import RunError
from holdfast.core.input_errors import reading_errors

# The result of a run over a thousand classes has 20 MB.
MAX_FILE_BYTES = 64_000_000
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def open_regular(path: Path) -> int:
    """A descriptor of a regular file at ``path``; the caller closes it.

    Raises ``OSError`` where it is missing or a link, ``RunError`` where it is not a regular file.
    """
    descriptor = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(str(path), "is not a file", None, "Remove it from the run's folder.")
    return descriptor


def read_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a file of the run. Raises ``RunError`` where it cannot be read or is larger."""
    with reading_errors(str(path), RunError, remedy="Restore it from a copy."):
        descriptor = open_regular(path)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                rule = f"is larger than the limit of {max_bytes:,} bytes"
                raise RunError(str(path), rule, size, "Remove it from the run's folder.")
            return file.read(max_bytes)


def read_end(path: Path, max_bytes: int) -> bytes:
    """The last ``max_bytes`` bytes of a file; raises as ``open_regular`` does."""
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, max_bytes, max(0, size - max_bytes))
    finally:
        os.close(descriptor)


def refuse_links(run: Path, names: Iterable[str]) -> None:
    """Raise ``RunError`` where one of these files of a run is a link: its target may be any file,
    and would be shown."""
    for name in names:
        if (run / name).is_symlink():
            rule = "is a link, and a run must have its own file"
            remedy = "Replace the link by the file, or remove it."
            raise RunError(str(run / name), rule, None, remedy)


# Bytes before the position that its checksum covers.
CHECKED_BYTES = 256
# Larger growth is read in several calls.
MAX_READ_BYTES = 4_000_000
START_POSITION = "0-0"


@dataclass(frozen=True, slots=True)
class NewLines:
    """The content after a position: ``lines``, the complete and valid ones, each with the position
    after it; ``position`` to continue from; ``restarted``, whether the file is another than the
    position's, so that ``lines`` begin at its start; ``skipped`` lines that are not a JSON object;
    ``more``, whether there is more to read at once."""

    lines: tuple[tuple[str, Mapping[str, Any]], ...]
    position: str
    restarted: bool = False
    skipped: int = 0
    more: bool = False


def read_new_lines(
    path: Path, position: str = START_POSITION, max_bytes: int = MAX_READ_BYTES
) -> NewLines:
    """The complete lines after ``position``; a line that is half written is left for the next call.

    An invalid ``position`` means the start. Raises ``OSError`` where the file is missing or
    unreadable, ``RunError`` where it is not a regular file.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        located = _locate(descriptor, size, position)
        at, before = located or (0, b"")
        raw = os.pread(descriptor, max_bytes, at)
    finally:
        os.close(descriptor)
    restarted = located is None
    complete = raw[: raw.rfind(b"\n") + 1]
    if not complete and len(raw) == max_bytes:
        # A run writes no line that is longer than one read.
        return NewLines((), _position(at + len(raw), raw), restarted, 1, True)
    lines, skipped, end = [], 0, 0
    last_position = START_POSITION if restarted else position
    for line in complete.split(b"\n")[:-1]:
        end += len(line) + 1
        last_position = _position(at + end, _checked_bytes(before, complete, end))
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            lines.append((last_position, event))
        else:
            skipped += bool(line.strip())
    return NewLines(tuple(lines), last_position, restarted, skipped, at + len(raw) < size)


def _checked_bytes(before: bytes, complete: bytes, end: int) -> bytes:
    """The bytes that the checksum of a position after the first ``end`` of ``complete`` covers."""
    if end >= CHECKED_BYTES:
        return complete[end - CHECKED_BYTES : end]
    return before[-CHECKED_BYTES:] + complete[:end]


def _locate(descriptor: int, size: int, position: str) -> tuple[int, bytes] | None:
    """The offset of a position and the bytes before it; ``None`` where the file has changed."""
    number = position.partition("-")[0]
    if not (number.isascii() and number.isdecimal() and len(number) < 16):
        return None
    offset = int(number)
    start = max(0, offset - CHECKED_BYTES)
    before = os.pread(descriptor, offset - start, start) if offset <= size else b""
    return (offset, before) if _position(offset, before) == position else None


def _position(offset: int, before: bytes) -> str:
    return f"{offset}-{zlib.crc32(before[-CHECKED_BYTES:]) if offset else 0}"
