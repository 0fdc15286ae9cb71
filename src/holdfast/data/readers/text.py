"""Bytes to lines of text: compression, byte-order marks, encodings, NUL bytes."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from holdfast.core.errors import DataError
from holdfast.data.raw import reading
from holdfast.data.readers.encodings import refuse_encoding

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_FOREIGN = (
    (b"\x1f\x8b", "gzip-compressed", "Name it with .gz at the end."),
    (
        b"PK\x03\x04",
        "a ZIP or Excel file",
        "Name it .xlsx if it is a workbook, or export it as CSV.",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Excel file", "Save it as .xlsx or CSV."),
    (b"PAR1", "a Parquet file", "Name it .parquet."),
)


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed where its name ends in ``.gz``."""
    return cast(
        BinaryIO, gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")
    )


@contextlib.contextmanager
def open_lines(path: Path, encoding: str | None) -> Iterator[Iterator[str]]:
    """The file's lines with their ends (``\\n``, ``\\r\\n`` or ``\\r``) as they are.

    Without ``encoding`` the file must be UTF-8, with or without a byte-order mark. Anything else is
    refused with the name of the encoding that it seems to be in. A NUL is refused with its line.
    """
    with reading(path), open_text(path, encoding) as stream:
        try:
            yield _without_nul(path, stream)
        except UnicodeError as error:
            refuse_encoding(path, open_bytes, encoding, error)


@contextlib.contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """The file as a stream of characters, line ends untouched."""
    with open_bytes(path) as stream:
        head = stream.read(4)
        _refuse_foreign(path, head)
        _refuse_marks(path, head, encoding)
        stream.seek(0)
        codec = _codec(encoding)
        yield io.TextIOWrapper(io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20), codec,
                               newline="")  # fmt: skip


def _codec(encoding: str | None) -> str:
    if encoding is None or codecs.lookup(_known(encoding)).name in ("utf-8", "utf-8-sig"):
        return "utf-8-sig"
    return encoding


def _known(encoding: str) -> str:
    try:
        codecs.lookup(encoding)
        "".encode(encoding)
    except LookupError:
        raise DataError(
            "data.encoding", "is not an encoding that Python knows", encoding,
            "Try utf-8, utf-16, cp1252, latin-1, cp1251, gb18030, shift_jis or big5.",
        ) from None  # fmt: skip
    return encoding


def _refuse_foreign(path: Path, head: bytes) -> None:
    for magic, what, remedy in _FOREIGN:
        if head.startswith(magic):
            raise DataError(str(path), f"is {what}, not text", None, remedy)


def _refuse_marks(path: Path, head: bytes, encoding: str | None) -> None:
    if encoding is not None:
        return
    for mark, name in _MARKS:
        if head.startswith(mark):
            raise DataError(
                str(path), f"begins with the byte-order mark of {name.upper()}", None,
                f"If that is right, add --set data.encoding={name}.",
            )  # fmt: skip


def _without_nul(path: Path, stream: TextIO) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if "\0" in line:
            raise DataError(
                f"{path}, line {number}", "holds a NUL byte, which no text has", None,
                "The file is damaged or not text; if it is UTF-16, add --set data.encoding=utf-16.",
            )  # fmt: skip
        yield line
