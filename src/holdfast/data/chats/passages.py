"""A text file as rows: a passage each, in the column ``text``; blank lines part passages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.data.limits import check_row
from holdfast.data.paths import source_path
from holdfast.data.raw import BATCH_CHARACTERS, BATCH_ROWS, Batch, Raw, reading, store
from holdfast.data.readers.text import open_lines


def is_text_file(source: str | Path) -> bool:
    """Whether the source is a file that ends in ``.txt`` or ``.txt.gz``."""
    path = source_path(source)
    return path.name.lower().removesuffix(".gz").endswith(".txt") and path.is_file()


def read_passages(path: Path, encoding: str | None) -> Raw:
    """The passages of a text file, their lines as they are, without the blank lines between."""
    with reading(path):
        return store(_batches(path, encoding), str(path))


def _batches(path: Path, encoding: str | None) -> Iterator[Batch]:
    passages: list[str] = []
    size = seen = 0
    with open_lines(path, encoding) as lines:
        for passage in _passages(path, lines):
            passages.append(passage)
            size, seen = size + len(passage), seen + 1
            if len(passages) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield _batch(passages)
                passages, size = [], 0
    if not seen:
        raise DataError(str(path), "holds no text", None, "It needs passages of text.")
    if passages:
        yield _batch(passages)


def _passages(path: Path, lines: Iterator[str]) -> Iterator[str]:
    passage: list[str] = []
    size = 0
    for line in lines:
        size += len(line)
        if line.strip():
            check_row(str(path), size, "Part its passages by blank lines.")
            passage.append(line)
        elif passage:
            yield "".join(passage).rstrip("\r\n")
            passage, size = [], 0
    if passage:
        yield "".join(passage).rstrip("\r\n")


def _batch(passages: list[str]) -> Batch:
    return Batch({"text": pa.array(passages, pa.string())}, {"text": {"text"}})
