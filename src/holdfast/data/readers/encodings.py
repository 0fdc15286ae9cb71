"""Which encoding a file seems to be in: named to the user, never used unasked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NoReturn

from holdfast.core.errors import DataError

_SAMPLE_BYTES = 100_000


def refuse_encoding(
    path: Path,
    open_bytes: Callable[[Path], BinaryIO],
    encoding: str | None,
    error: UnicodeError,
) -> NoReturn:
    """Raise what the user needs: the first bad line, and the encoding that would read it."""
    if encoding is not None:
        raise DataError(
            str(path), f"is not in {encoding}: {getattr(error, 'reason', error)}", None,
            "Leave data.encoding out to have the encoding named.",
        ) from error  # fmt: skip
    number, line, sample = _odd_lines(path, open_bytes)
    likely = likely_encodings(sample)
    hint = _hint(line, likely) if likely else "Save it as UTF-8, or name its encoding"
    example = likely[0] if likely else "…"
    raise DataError(
        f"{path}, line {number}", "is not UTF-8", None,
        f"{hint}. If that is right, add --set data.encoding={example}",
    ) from error  # fmt: skip


def _hint(line: bytes, likely: list[str]) -> str:
    read = [f"{line.decode(name, errors='replace').strip()[:80]!r} in {name}" for name in likely]
    others = f"; or {' or '.join(read[1:])}" if read[1:] else ""
    return f"It seems to be {likely[0]}: that line reads {read[0]}{others}"


def likely_encodings(sample: bytes) -> list[str]:
    """The likeliest encodings of bytes that are not UTF-8, at most three, the best first.

    By charset-normalizer; where Windows-1252 reads the sample to the same text as its first choice,
    or where there are too few odd bytes to tell (fewer than 20, and not in runs), Windows-1252 is
    named alone, the commonest by far.
    """
    import charset_normalizer

    found = list(charset_normalizer.from_bytes(sample))
    western = _decode(sample, "cp1252")
    if western is not None and (_few_and_single(sample) or (found and str(found[0]) == western)):
        return ["cp1252"]
    return [match.encoding for match in found[:3]]


def _few_and_single(sample: bytes) -> bool:
    odd = [position for position, byte in enumerate(sample) if byte > 127]
    runs = sum(1 for a, b in itertools.pairwise(odd) if b == a + 1)
    return len(odd) < 20 and runs * 4 <= len(odd)


def _decode(sample: bytes, encoding: str) -> str | None:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError:
        return None


def _odd_lines(path: Path, open_bytes: Callable[[Path], BinaryIO]) -> tuple[int, bytes, bytes]:
    """The number and bytes of the first line that is not UTF-8, and a sample of such lines."""
    first: tuple[int, bytes] = (1, b"")
    sample = b""
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, 1):
            if _decode(line, "utf-8") is None:
                first = first if first[1] else (number, line)
                sample += line
            if len(sample) > _SAMPLE_BYTES:
                break
    return *first, sample
