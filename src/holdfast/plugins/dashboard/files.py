"""Reading files of a run folder that anybody may have made: no link is followed, nothing that could
block is opened, nothing of any size is read; and of an ``events.jsonl`` that is being written the
lines from a byte on.

A place in that file is ``OFFSET-CHECK``: the byte after the last whole line that was read, and a
sum of the bytes before it. A run that is resumed cuts its file back to a checkpoint and writes on:
the byte may be there again, but what lies before it is another line, and the sum says so.
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
from holdfast.core.input_errors import door

# The result of a run over a thousand classes has 20 MB.
MAX_FILE_BYTES = 64_000_000
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def open_regular(path: Path) -> int:
    """A descriptor of an ordinary file at ``path``; whoever asks closes it.

    Raises ``OSError`` where there is none or a link stands in its place, ``RunError`` where it is
    no ordinary file.
    """
    descriptor = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(str(path), "is not a file", None, "Remove it from the run's folder.")
    return descriptor


def read_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a file of the run. Raises ``RunError`` where it cannot be read or is larger."""
    with door(str(path), RunError, remedy="Restore it from a copy."):
        descriptor = open_regular(path)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                rule = f"is larger than the {max_bytes:,} bytes that are read of such a file"
                raise RunError(str(path), rule, size, "Take it out of the run's folder.")
            return file.read(max_bytes)


def read_end(path: Path, max_bytes: int) -> bytes:
    """The last bytes of a file, at most so many; raises as ``open_regular`` does."""
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, max_bytes, max(0, size - max_bytes))
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


# Bytes before the place that its sum is of.
CHECKED_BYTES = 256
# One reading of a file that grew by more goes on at the next.
MAX_READ_BYTES = 4_000_000
START_POSITION = "0-0"


@dataclass(frozen=True, slots=True)
class NewLines:
    """What stands after a place: ``lines`` that are whole and can be read, each with the place
    after it; ``position`` where to go on; ``restarted`` whether the file is another than the one that the
    place was of, so that ``lines`` begin at its start; ``skipped`` lines that are no JSON object;
    ``more`` whether there is more to read at once."""

    lines: tuple[tuple[str, Mapping[str, Any]], ...]
    position: str
    restarted: bool = False
    skipped: int = 0
    more: bool = False


def read_new_lines(path: Path, position: str = START_POSITION, max_bytes: int = MAX_READ_BYTES) -> NewLines:
    """The whole lines after ``position``; a line that is half written is left for the next time.

    A ``position`` that is no place of this file, whoever made it up, is its start. Raises ``OSError``
    where the file is gone or may not be read, ``RunError`` where it is none.
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
        # A line longer than all that is read at once is no line of a run's.
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
    """The bytes that a place after the first ``end`` of ``complete`` is the sum of."""
    if end >= CHECKED_BYTES:
        return complete[end - CHECKED_BYTES : end]
    return before[-CHECKED_BYTES:] + complete[:end]


def _locate(descriptor: int, size: int, position: str) -> tuple[int, bytes] | None:
    """The byte of a place and what lies before it; ``None`` where the file is another by now."""
    number = position.partition("-")[0]
    if not (number.isascii() and number.isdecimal() and len(number) < 16):
        return None
    offset = int(number)
    start = max(0, offset - CHECKED_BYTES)
    before = os.pread(descriptor, offset - start, start) if offset <= size else b""
    return (offset, before) if _position(offset, before) == position else None


def _position(offset: int, before: bytes) -> str:
    return f"{offset}-{zlib.crc32(before[-CHECKED_BYTES:]) if offset else 0}"
