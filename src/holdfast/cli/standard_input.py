"""Texts from standard input, for the commands that take ``-`` in the place of data."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.errors import DataError

if TYPE_CHECKING:
    from holdfast.contract.inference import Options


def piped(run: Path, options: Options) -> list[str]:
    """One text a line, within the limits of the run as a file would be read."""
    from holdfast.contract.advice import advising
    from holdfast.contract.inference import data_part, within_limits

    with advising(), within_limits(data_part(run), options.limits):
        return _stdin(options.encoding)


def _stdin(encoding: str | None) -> list[str]:
    from holdfast.data.limits import check_row, limits
    from holdfast.data.readers.text import find_codec, refuse_nul

    codec = find_codec(encoding)
    # A line ends at "\n" alone: a form feed or U+2028 inside a text ends none.
    stream = io.TextIOWrapper(sys.stdin.buffer, codec, newline="\n")
    texts: list[str] = []
    try:
        longest = limits().cell
        while line := stream.readline(longest + 1):
            where = f"standard input, line {len(texts) + 1}"
            check_row(where, len(line))
            refuse_nul(where, line)
            texts.append(line.removesuffix("\n").removesuffix("\r"))
    except UnicodeError as error:
        raise DataError(
            "standard input",
            f"is not {encoding or 'UTF-8'}",
            str(error),
            "Name its encoding with --encoding, or convert it first.",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            stream.detach()
    if not texts:
        raise DataError("standard input", "is empty", None, "Give one text a line.")
    return texts
