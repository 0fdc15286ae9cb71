"""Bytes to lines of text: compression, byte-order marks, encodings, NUL bytes.

The likely encoding of a file is suggested to the user, never used without being set.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO, cast

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.core.printable import shorten
from holdfast.data.limits import check_row, check_unpacked, current_limits
from holdfast.data.raw import read_errors
from holdfast.data.scratch import scratch_file

_SAMPLE_BYTES = 100_000
CONTEXT = 15
# Shares of letters with accents: French 4 %, Polish 8 %, English nearly none.
MAX_ACCENTED_SHARE = 0.03


def refuse_encoding(path: Path, encoding: str | None, error: UnicodeError) -> NoReturn:
    """Raise an error with the first undecodable line and the encoding that would read it."""
    if encoding is not None:
        refused_bytes = None
        if isinstance(error, UnicodeDecodeError):
            # The refused bytes with their neighbours.
            refused_bytes = error.object[max(0, error.start - CONTEXT) : error.end + CONTEXT]
        rule = f"is not in {encoding}: {getattr(error, 'reason', error)}"
        remedy = "Leave data.encoding out: Holdfast then suggests the encoding."
        raise DataError(str(path), rule, refused_bytes, remedy) from error
    number, line, before, sample = _undecodable_lines(path)
    likely = likely_encodings(sample)
    hint = _hint(line, likely) if likely else "Save the file as UTF-8, or name its encoding"
    example = likely[0] if likely else "…"
    # The first undecodable bytes.
    start, end = _first_undecodable(line)
    shown = " ".join(f"0x{byte:02X}" for byte in line[start:end])
    raise DataError(
        f"{path}, line {number}",
        f"is not UTF-8: byte{'s' if end - start > 1 else ''} {shown} at position {start + 1} of "
        f"the line, {before + start + 1} of the file",
        line[max(0, start - CONTEXT) : end + CONTEXT].strip(),
        f"{hint}. If that is right, add --set data.encoding={example}",
    ) from error


def _first_undecodable(line: bytes) -> tuple[int, int]:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start, error.end
    return 0, 0


def _hint(line: bytes, likely: list[str]) -> str:
    read = [f"{shorten(line.decode(name, errors='replace').strip(), 80)!r}" for name in likely]
    others = " or ".join(
        f"{text} in {name}" for text, name in zip(read[1:], likely[1:], strict=True)
    )
    or_others = f"; or {others}" if others else ""
    return f"It is probably {likely[0]}, in which the line reads {read[0]}{or_others}"


def likely_encodings(sample: bytes) -> list[str]:
    """The likeliest encodings of bytes that are not UTF-8, at most three, the best first.

    Detected by charset-normalizer. Windows-1252, by far the most frequent, is the only result where
    it decodes the sample to the same text as the first choice, or where there are too few
    non-ASCII bytes (fewer than 20, and not in runs). It comes first where its text has plausible
    words and the first choice is a rare encoding, or where hardly any letter has an accent, as in
    English with curved quotation marks.
    """
    import charset_normalizer

    matches = list(charset_normalizer.from_bytes(sample))
    western = _decode(sample, "cp1252")
    if western is not None and (
        _few_and_single(sample) or (matches and str(matches[0]) == western)
    ):
        return ["cp1252"]
    names = [match.encoding for match in matches[:3]]
    if western is None or not names or not _reads_words(western):
        return names
    letters = [letter for letter in western if letter.isalpha()]
    accented = sum(not letter.isascii() for letter in letters)
    # Nearly all letters are without accents.
    plain = len(letters) > 0 and accented <= MAX_ACCENTED_SHARE * len(letters)
    if plain or names[0].startswith(("mac", "iso8859", "cp8", "cp1257", "cp1258")):
        names = ["cp1252", *(name for name in names if name != "cp1252")][:3]
    return names


def _reads_words(text: str) -> bool:
    """Whether, after every lower-case letter, a non-ASCII character is neither a capital nor a
    symbol between two letters."""
    for before, letter, after in zip(text, text[1:], text[2:], strict=False):
        if not letter.isascii() and before.islower():
            inside = not letter.isalpha() and letter not in "’­" and after.isalpha()
            if letter.isupper() or inside:
                return False
    return True


def _few_and_single(sample: bytes) -> bool:
    # In western text letters with accents are single; other scripts have runs of such bytes.
    high_bytes = [position for position, byte in enumerate(sample) if byte > 127]
    runs = sum(1 for a, b in itertools.pairwise(high_bytes) if b == a + 1)
    return len(high_bytes) < 20 and runs * 4 <= len(high_bytes)


def _decode(sample: bytes, encoding: str) -> str | None:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError:
        return None


def _undecodable_lines(path: Path) -> tuple[int, bytes, int, bytes]:
    """The number and bytes of the first line that is not UTF-8, the number of bytes before it in
    the file, and a sample of such lines."""
    first: tuple[int, bytes, int] = (1, b"", 0)
    sample, before = b"", 0
    with open_bytes(path) as stream:
        # Bounded: a file without a line end would be one line.
        lines = iter(lambda: stream.readline(current_limits().cell), b"")
        for number, line in enumerate(lines, 1):
            if _decode(line, "utf-8") is None:
                first = first if first[1] else (number, line, before)
                # From a long line, take a sample that begins just before its first such byte.
                about = max(0, _first_undecodable(line)[0] - CONTEXT)
                fits = len(line) < _SAMPLE_BYTES
                sample += line if fits else line[about : about + _SAMPLE_BYTES]
            before += len(line)
            if len(sample) > _SAMPLE_BYTES:
                break
    return *first, sample


# UTF-32's little-endian mark begins with UTF-16's, so it is tested first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN_FORMATS = (
    (b"\x1f\x8b", "gzip-compressed", "Add .gz to its name."),
    (
        b"PK\x03\x04",
        "a ZIP or Excel file",
        "If it is a workbook, rename it to .xlsx; else export it as CSV.",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Excel file", "Save it as .xlsx or CSV."),
    (b"PAR1", "a Parquet file", "Rename it to .parquet."),
)
# Codecs that Python treats as text encodings but no file uses: the first always fails, the next two
# are for host names (and take quadratic time), the others are for Python's own literals.
_NO_CHARSETS = ("undefined", "idna", "punycode", "unicode-escape", "raw-unicode-escape")

_PIECE = 1 << 20


class _Unpacked(io.RawIOBase):
    """A gzip file's content, counted while read, to refuse a gzip bomb before it fills memory."""

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
        # Bytes that are read again after a seek must not be counted twice.
        self._read = 0
        return self._stream.seek(offset, whence)

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed where its name ends in ``.gz``.

    Raises ``DataError``, while it is read, where it unpacks to more than ``data.limits`` allow.
    """
    if not is_gzipped(path):
        return cast(BinaryIO, path.open("rb"))
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path), 1 << 16))


def is_gzipped(path: Path) -> bool:
    """Whether the name ends in ``.gz``."""
    return path.suffix.lower() == ".gz"


def unpack(path: Path, suffix: str) -> Path:
    """The file itself; for one that ends in ``.gz``, an unpacked copy that supports random
    access."""
    if not is_gzipped(path):
        return path
    plain = scratch_file("unpacked", suffix)
    with open_bytes(path) as packed, disk_errors(plain), plain.open("wb") as target:
        shutil.copyfileobj(packed, target, 1 << 20)
    return plain


@contextlib.contextmanager
def open_lines(
    path: Path, encoding: str | None, *, pieces: bool = False
) -> Iterator[Iterator[str]]:
    """The file's lines with their ends (``\\n``, ``\\r\\n`` or ``\\r``) unchanged; with
    ``pieces``, a line of more than a million characters comes in several pieces.

    Without ``encoding`` the file must be UTF-8, with or without a byte-order mark. A file in
    another encoding is refused, with the likely encoding in the error. A NUL is refused with its
    line, and so is a line longer than ``data.limits.cell_mb``.
    """
    with read_errors(path), open_text(path, encoding) as stream:
        try:
            yield _pieces(path, stream) if pieces else _lines(path, stream)
        except UnicodeError as error:
            refuse_encoding(path, encoding, error)


@contextlib.contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """The file as a stream of characters, line ends unchanged."""
    codec = find_codec(encoding)
    with open_bytes(path) as stream:
        # The length of the longest known mark.
        head = stream.read(4)
        for magic, format_name, remedy in _FOREIGN_FORMATS:
            if head.startswith(magic):
                raise DataError(str(path), f"is {format_name}, not text", None, remedy)
        for mark, name in _MARKS if encoding is None else ():
            if head.startswith(mark):
                raise DataError(
                    str(path),
                    f"begins with the byte-order mark of {name.upper()}",
                    None,
                    f"If this is its encoding, add --set data.encoding={name}.",
                )
        stream.seek(0)
        yield io.TextIOWrapper(
            # Line ends unchanged: inside a quoted cell they belong to the text.
            io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20),
            codec,
            newline="",
        )


def find_codec(encoding: str | None) -> str:
    """Python's name for the encoding of a text file; UTF-8 accepts a byte-order mark.

    Raises ``DataError`` for an unknown encoding.
    """
    if encoding is None:
        return "utf-8-sig"
    known = False
    with contextlib.suppress(Exception):
        # The second test refuses codecs that do not encode text: base64, zip.
        name, _ = codecs.lookup(encoding).name.replace("_", "-"), "".encode(encoding)
        known = name not in _NO_CHARSETS
    if not known:
        rule = "is not a text encoding that Python knows"
        remedy = "Try utf-8, utf-16, cp1252, latin-1, cp1251, gb18030, shift_jis or big5."
        raise DataError("data.encoding", rule, encoding, remedy)
    return "utf-8-sig" if name in ("utf-8", "utf-8-sig") else encoding


def join_lines(path: Path, pieces: Iterator[str]) -> Iterator[str]:
    """Lines from the pieces that ``open_lines`` yields; raises ``DataError`` for one longer than
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
    longest, number = current_limits().cell, 0
    # One more than the limit shows that a line is too long, without holding all of it.
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
    """Refuse a text with a NUL character."""
    if "\0" in text:
        remedy = "The file is damaged or not text; if it is UTF-16, add --set data.encoding=utf-16."
        raise DataError(where, "holds a NUL byte, which is not valid in text", None, remedy)
