"""Bytes to lines of text: compression, byte-order marks, encodings, NUL bytes.

Which encoding a file seems to be in is named to the user, never used unasked.
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
from holdfast.data.limits import check_row, check_unpacked, current_limits
from holdfast.data.raw import read_errors
from holdfast.data.scratch import scratch_file

_SAMPLE_BYTES = 100_000
CONTEXT = 15
# Of the letters: French has accents on four in a hundred, Polish on eight, English on hardly one.
MAX_ACCENTED_SHARE = 0.03


def refuse_encoding(path: Path, encoding: str | None, error: UnicodeError) -> NoReturn:
    """Raise what the user needs: the first bad line, and the encoding that would read it."""
    if encoding is not None:
        refused_bytes = None
        if isinstance(error, UnicodeDecodeError):
            # The bytes that a decoder refused, between those beside them.
            refused_bytes = error.object[max(0, error.start - CONTEXT) : error.end + CONTEXT]
        raise DataError(
            str(path),
            f"is not in {encoding}: {getattr(error, 'reason', error)}",
            refused_bytes,
            "Leave data.encoding out to have the encoding named.",
        ) from error
    number, line, before, sample = _undecodable_lines(path)
    likely = likely_encodings(sample)
    hint = _hint(line, likely) if likely else "Save it as UTF-8, or name its encoding"
    example = likely[0] if likely else "…"
    # The bytes about the first odd ones.
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
    read = [f"{line.decode(name, errors='replace').strip()[:80]!r} in {name}" for name in likely]
    others = f"; or {' or '.join(read[1:])}" if read[1:] else ""
    return f"It seems to be {likely[0]}: that line reads {read[0]}{others}"


def likely_encodings(sample: bytes) -> list[str]:
    """The likeliest encodings of bytes that are not UTF-8, at most three, the best first.

    By charset-normalizer; where Windows-1252 reads the sample to the same text as its first choice,
    or where there are too few odd bytes to tell (fewer than 20, and not in runs), Windows-1252 is
    named alone, the most frequent by far. It is named first where it reads words as words and the
    first choice is hardly used any more, or hardly a letter is odd, as in English with curved
    quotation marks.
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
    # Next to all letters are without accents.
    plain = len(letters) > 0 and accented <= MAX_ACCENTED_SHARE * len(letters)
    if plain or names[0].startswith(("mac", "iso8859", "cp8")):
        names = ["cp1252", *(name for name in names if name != "cp1252")][:3]
    return names


def _reads_words(text: str) -> bool:
    """Whether no odd sign after a small letter is a capital or stands between two letters and is
    none."""
    for before, letter, after in zip(text, text[1:], text[2:], strict=False):
        if not letter.isascii() and before.islower():
            inside = not letter.isalpha() and letter not in "’­" and after.isalpha()
            if letter.isupper() or inside:
                return False
    return True


def _few_and_single(sample: bytes) -> bool:
    # In western text letters with accents stand alone; other scripts are runs of such bytes.
    high_bytes = [position for position, byte in enumerate(sample) if byte > 127]
    runs = sum(1 for a, b in itertools.pairwise(high_bytes) if b == a + 1)
    return len(high_bytes) < 20 and runs * 4 <= len(high_bytes)


def _decode(sample: bytes, encoding: str) -> str | None:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError:
        return None


def _undecodable_lines(path: Path) -> tuple[int, bytes, int, bytes]:
    """The number and bytes of the first line that is not UTF-8, the bytes before it in the file,
    and a sample of such lines."""
    first: tuple[int, bytes, int] = (1, b"", 0)
    sample, before = b"", 0
    with open_bytes(path) as stream:
        # Bounded: a file without a line end would be one line.
        lines = iter(lambda: stream.readline(current_limits().cell), b"")
        for number, line in enumerate(lines, 1):
            if _decode(line, "utf-8") is None:
                first = first if first[1] else (number, line, before)
                # Of a long line so much, from just before its first odd byte, as makes a sample.
                about = max(0, _first_undecodable(line)[0] - CONTEXT)
                fits = len(line) < _SAMPLE_BYTES
                sample += line if fits else line[about : about + _SAMPLE_BYTES]
            before += len(line)
            if len(sample) > _SAMPLE_BYTES:
                break
    return *first, sample


# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN_FORMATS = (
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
    if not is_gzipped(path):
        return cast(BinaryIO, path.open("rb"))
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path), 1 << 16))


def is_gzipped(path: Path) -> bool:
    """Whether the name says that the file is compressed with gzip (``.gz``)."""
    return path.suffix.lower() == ".gz"


def unpack(path: Path, suffix: str) -> Path:
    """The file itself; or, for one that ends in ``.gz``, a copy of its content that can be read
    from any place."""
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
    """The file's lines with their ends (``\\n``, ``\\r\\n`` or ``\\r``) as they are; as
    ``pieces``, a line of more than a million characters comes in several.

    Without ``encoding`` the file must be UTF-8, with or without a byte-order mark. Anything else is
    refused with the name of the encoding that it seems to be in. A NUL is refused with its line,
    and so is a line that is longer than ``data.limits.cell_mb``.
    """
    with read_errors(path), open_text(path, encoding) as stream:
        try:
            yield _pieces(path, stream) if pieces else _lines(path, stream)
        except UnicodeError as error:
            refuse_encoding(path, encoding, error)


@contextlib.contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """The file as a stream of characters, line ends untouched."""
    codec = find_codec(encoding)
    with open_bytes(path) as stream:
        # The longest mark that is looked for.
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
                    f"If that is right, add --set data.encoding={name}.",
                )
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


def join_lines(path: Path, pieces: Iterator[str]) -> Iterator[str]:
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
    longest, number = current_limits().cell, 0
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
