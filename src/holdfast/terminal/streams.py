"""Standard input, output and error, repaired where the caller closed them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import TextIO

from holdfast.core.printable import printable_json


def prepare_streams() -> None:
    """Open closed streams (``>&-``), and make every character writable.

    If standard output is closed, the first file that a library opens gets its number, and printed
    text would end up in that file; so the number is occupied. A character that the terminal's
    encoding lacks is written as an escape sequence instead of raising an error.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - a number, kept open
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # PYTHONUNBUFFERED: an unbuffered stream takes a write that a full disk cut short for a
        # whole one.
        sys.stdout = open(1, "w", 1, sys.stdout.encoding, sys.stdout.errors, closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> OSError | None:
    """Write what is left in the buffer of standard output; the error, if it cannot be written.
    Python has then nothing left to complain about at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        return error
    except ValueError:  # a stream that was closed
        return None
    return None


def discard_output() -> None:
    """Discard whatever is still to be written on standard output."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def notify(text: str, stream: TextIO | None = None) -> None:
    """Write on standard error. If it can no longer be written (a closed terminal or pipe), the text
    is discarded: a run must not fail because its messages cannot be printed."""
    stream = sys.stderr if stream is None else stream
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class SafeStream(io.TextIOBase):
    """A stream that writes with ``notify``, for libraries that need a file object."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        notify(text, self._stream)
        return len(text)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


def json_text(value: object, indent: int | None = 2) -> str:
    """One JSON document for standard output: non-ASCII characters as they are in UTF-8, as
    ``\\u…`` in any other encoding; control characters are always escaped. Without ``indent`` it is
    one line."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return printable_json(json.dumps(value, indent=indent, ensure_ascii=not unicode))
