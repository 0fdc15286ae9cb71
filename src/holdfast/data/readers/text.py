"""Bytes to lines of text: compression, byte-order marks, encodings, NUL bytes."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.data.limits import check_row, check_unpacked, limits
from holdfast.data.raw import reading
from holdfast.data.readers.encodings import refuse_encoding
from holdfast.data.scratch import scratch_file

# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
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
# Codecs that Python counts among those of text, and no file is written in: the first always fails,
# the next two are of host names (and take quadratic time), the rest of Python's own literals.
_NO_CHARSETS = ("undefined", "idna", "punycode", "unicode-escape", "raw-unicode-escape")

_PIECE = 1 << 20


class _Unpacked(io.RawIOBase):
    """A gzip file's content, counted as it comes: a bomb is refused before it fills memory."""

    def __init__(self, path: Path) -> None:
        self._path, self._packed = path, path.stat().st_size
        self._stream, self._read = gzip.GzipFile(path, "rb"), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count = self._stream.readinto(buffer)  # type: ignore[arg-type]
        self._read += count
        check_unpacked(str(self._path), self._packed, self._read)
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        # What is read again from there must not be counted twice.
        self._read = 0
        return self._stream.seek(offset, whence)

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed where its name ends in ``.gz``.

    Raises ``DataError``, while it is read, where it unpacks to more than ``data.limits`` allow.
    """
    if not is_packed(path):
        return cast(BinaryIO, path.open("rb"))
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path), 1 << 16))


def is_packed(path: Path) -> bool:
    """Whether the name says that the file is compressed with gzip (``.gz``)."""
    return path.suffix.lower() == ".gz"


def unpacked(path: Path, suffix: str) -> Path:
    """The file itself; or, for one that ends in ``.gz``, a copy of its content that can be read
    from any place."""
    if not is_packed(path):
        return path
    plain = scratch_file("unpacked", suffix)
    with open_bytes(path) as packed, disk_errors(plain), plain.open("wb") as target:
        shutil.copyfileobj(packed, target, 1 << 20)
    return plain


@contextlib.contextmanager
def open_lines(
    path: Path, encoding: str | None, *, pieces: bool = False
) -> Iterator[Iterator[str]]:
    """The file's lines with their ends (``\\n``, ``\\r\\n`` or ``\\r``) as they are; as
    ``pieces``, a line of more than a million characters comes in several.

    Without ``encoding`` the file must be UTF-8, with or without a byte-order mark. Anything else is
    refused with the name of the encoding that it seems to be in. A NUL is refused with its line,
    and so is a line that is longer than ``data.limits.cell_mb``.
    """
    with reading(path), open_text(path, encoding) as stream:
        try:
            yield _pieces(path, stream) if pieces else _lines(path, stream)
        except UnicodeError as error:
            refuse_encoding(path, open_bytes, encoding, error)


@contextlib.contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """The file as a stream of characters, line ends untouched."""
    codec = find_codec(encoding)
    with open_bytes(path) as stream:
        # The longest mark that is looked for.
        head = stream.read(4)
        for magic, what, remedy in _FOREIGN:
            if head.startswith(magic):
                raise DataError(str(path), f"is {what}, not text", None, remedy)
        _refuse_marks(path, head, encoding)
        stream.seek(0)
        yield io.TextIOWrapper(
            # Line ends as they are: inside a quoted cell they belong to the text.
            io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20),
            codec,
            newline="",
        )


def find_codec(encoding: str | None) -> str:
    """Python's name of the encoding of a text file; UTF-8 takes a byte-order mark.

    Raises ``DataError`` where it is none.
    """
    if encoding is None:
        return "utf-8-sig"
    known = False
    with contextlib.suppress(Exception):
        # The second refuses what is a codec, but of no text: base64, zip.
        name, _ = codecs.lookup(encoding).name.replace("_", "-"), "".encode(encoding)
        known = name not in _NO_CHARSETS
    if not known:
        raise DataError(
            "data.encoding",
            "is not an encoding of text files that Python knows",
            encoding,
            "Try utf-8, utf-16, cp1252, latin-1, cp1251, gb18030, shift_jis or big5.",
        )
    return "utf-8-sig" if name in ("utf-8", "utf-8-sig") else encoding


def _refuse_marks(path: Path, head: bytes, encoding: str | None) -> None:
    if encoding is not None:
        return
    for mark, name in _MARKS:
        if head.startswith(mark):
            raise DataError(
                str(path),
                f"begins with the byte-order mark of {name.upper()}",
                None,
                f"If that is right, add --set data.encoding={name}.",
            )


def whole_lines(path: Path, pieces: Iterator[str]) -> Iterator[str]:
    """Lines from the pieces that ``open_lines`` hands out; raises ``DataError`` for one longer than
    ``data.limits.cell_mb``."""
    parts: list[str] = []
    for piece in pieces:
        parts.append(piece)
        check_row(str(path), sum(map(len, parts)))
        if piece.endswith(("\n", "\r")):
            yield "".join(parts)
            parts = []
    if parts:
        yield "".join(parts)


def _lines(path: Path, stream: TextIO) -> Iterator[str]:
    longest, number = limits().cell, 0
    # One more than may be: so a line shows that it is too long, and is never held whole.
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest:
            check_row(f"{path}, line {number}", len(line))
        if "\0" in line:
            refuse_nul(f"{path}, line {number}", line)
        yield line


def _pieces(path: Path, stream: TextIO) -> Iterator[str]:
    number = 1
    while piece := stream.readline(_PIECE):
        if "\0" in piece:
            refuse_nul(f"{path}, line {number}", piece)
        number += piece.endswith(("\n", "\r"))
        yield piece


def refuse_nul(where: str, text: str) -> None:
    """Refuse a text that holds the one character that none has."""
    if "\0" in text:
        raise DataError(
            where,
            "holds a NUL byte, which no text has",
            None,
            "The file is damaged or not text; if it is UTF-16, add --set data.encoding=utf-16.",
        )
