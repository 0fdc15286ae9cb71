"""Standard input, output and error as they should be, whatever the caller left of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import TextIO

from holdfast.core.printable import printable_json


def prepare_streams() -> None:
    """Open what is closed (``>&-``), and have every character written.

    Where standard output is closed, the first file that a library opens gets its number, and what
    is printed would land in it: so the number is taken. A character that a terminal's encoding
    lacks is written as its escape, never an error.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - a number, kept open
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> OSError | None:
    """Write out what is left; what kept it from being written, if anything did. Then Python itself
    has nothing left to complain of at its end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        return error
    except ValueError:  # a stream that was closed
        return None
    return None


def discard_output() -> None:
    """Send what is still to be written on standard output nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def notify(text: str, stream: TextIO | None = None) -> None:
    """Write on standard error. Where nobody reads there any more (a closed terminal, a pipe), the
    words go nowhere: a run ends for its own reasons, not for those of its words."""
    stream = sys.stderr if stream is None else stream
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class SafeStream(io.TextIOBase):
    """A stream that is written with ``notify``, for libraries that want a file."""

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
    """One JSON document that standard output can hold: letters as they are in UTF-8, as ``\\u…`` in
    any other encoding; what a terminal would obey is always escaped. Without ``indent`` it is one
    line."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return printable_json(json.dumps(value, indent=indent, ensure_ascii=not unicode))
