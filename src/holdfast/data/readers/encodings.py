"""Which encoding a file seems to be in: named to the user, never used unasked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NoReturn

from holdfast.core.errors import DataError
from holdfast.data.limits import limits

_SAMPLE_BYTES = 100_000
CONTEXT = 15
# Of the letters: French has accents on four in a hundred, Polish on eight, English on hardly one.
PLAIN = 0.03


def refuse_encoding(
    path: Path, open_bytes: Callable[[Path], BinaryIO], encoding: str | None, error: UnicodeError
) -> NoReturn:
    """Raise what the user needs: the first bad line, and the encoding that would read it."""
    if encoding is not None:
        # The bytes that a decoder refused, between those beside them.
        if not isinstance(error, UnicodeDecodeError):
            refused = None
        else:
            refused = error.object[max(0, error.start - CONTEXT) : error.end + CONTEXT]
        raise DataError(
            str(path),
            f"is not in {encoding}: {getattr(error, 'reason', error)}",
            refused,
            "Leave data.encoding out to have the encoding named.",
        ) from error
    number, line, before, sample = _odd_lines(path, open_bytes)
    likely = likely_encodings(sample)
    hint = _hint(line, likely) if likely else "Save it as UTF-8, or name its encoding"
    example = likely[0] if likely else "…"
    # The bytes about the first odd ones.
    start, end = _first_odd(line)
    raise DataError(
        f"{path}, line {number}",
        f"is not UTF-8: {_odd_bytes(line, before)}",
        line[max(0, start - CONTEXT) : end + CONTEXT].strip(),
        f"{hint}. If that is right, add --set data.encoding={example}",
    ) from error


def _odd_bytes(line: bytes, before: int) -> str:
    """The first bytes that UTF-8 refuses and where they stand, in the line and in the file."""
    start, end = _first_odd(line)
    shown = " ".join(f"0x{byte:02X}" for byte in line[start:end])
    plural = "s" if end - start > 1 else ""
    return (
        f"byte{plural} {shown} at position {start + 1} of the line, "
        f"{before + start + 1} of the file"
    )


def _about(line: bytes) -> bytes:
    """So much of a long line, from just before its first odd byte, as makes a sample."""
    start = max(0, _first_odd(line)[0] - CONTEXT)
    return line[start : start + _SAMPLE_BYTES]


def _first_odd(line: bytes) -> tuple[int, int]:
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
    named alone, the commonest by far. It is named first where it reads words as words and the first
    choice is hardly used any more, or hardly a letter is odd, as in English with curved quotation
    marks.
    """
    import charset_normalizer

    found = list(charset_normalizer.from_bytes(sample))
    western = _decode(sample, "cp1252")
    if western is not None and (_few_and_single(sample) or (found and str(found[0]) == western)):
        return ["cp1252"]
    names = [match.encoding for match in found[:3]]
    if western is None or not names or not _reads_words(western):
        return names
    if names[0].startswith(("mac", "iso8859", "cp8")) or _plain_letters(western):
        names = ["cp1252", *(name for name in names if name != "cp1252")][:3]
    return names


def _reads_words(text: str) -> bool:
    """Whether no odd sign after a small letter is a capital or stands between two letters and is
    none."""
    for before, odd, after in zip(text, text[1:], text[2:], strict=False):
        if not odd.isascii() and before.islower():
            inside = not odd.isalpha() and odd not in "’­" and after.isalpha()
            if odd.isupper() or inside:
                return False
    return True


def _plain_letters(text: str) -> bool:
    """Whether next to all letters are without accents."""
    letters = [letter for letter in text if letter.isalpha()]
    odd = sum(not letter.isascii() for letter in letters)
    return len(letters) > 0 and odd <= PLAIN * len(letters)


def _few_and_single(sample: bytes) -> bool:
    # In western text letters with accents stand alone; other scripts are runs of such bytes.
    odd = [position for position, byte in enumerate(sample) if byte > 127]
    runs = sum(1 for a, b in itertools.pairwise(odd) if b == a + 1)
    return len(odd) < 20 and runs * 4 <= len(odd)


def _decode(sample: bytes, encoding: str) -> str | None:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError:
        return None


def _odd_lines(path: Path, open_bytes: Callable[[Path], BinaryIO]) -> tuple[int, bytes, int, bytes]:
    """The number and bytes of the first line that is not UTF-8, the bytes before it in the file,
    and a sample of such lines."""
    first: tuple[int, bytes, int] = (1, b"", 0)
    sample, before = b"", 0
    with open_bytes(path) as stream:
        # Bounded: a file without a line end would be one line.
        lines = iter(lambda: stream.readline(limits().cell), b"")
        for number, line in enumerate(lines, 1):
            if _decode(line, "utf-8") is None:
                first = first if first[1] else (number, line, before)
                sample += line if len(line) < _SAMPLE_BYTES else _about(line)
            before += len(line)
            if len(sample) > _SAMPLE_BYTES:
                break
    return *first, sample
