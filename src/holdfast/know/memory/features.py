"""What a row is, without asking the model: its words, length, marks and label, or a picture's
colours."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.core.errors import DataError
from holdfast.core.records import Floats
from holdfast.core.seeds import generator
from holdfast.data.table import Table

_WORD = re.compile(r"\w+")
BUCKETS = 4096
# Of a long text the beginning says what it is about.
MOST_CHARACTERS = 20_000
MOST_CLASSES = 50
SIDE = 8
PICTURE = "path"


def features_of(members: Table, others: Table, width: int) -> tuple[Floats, Floats]:
    """The rows of both tables as numbers [n, d] and [m, d]: ``width`` directions of their words (or
    of their pixels), the lengths, the shares of digits, capitals and marks, and the label."""
    tables = (members, others)
    if PICTURE in members.rows.column_names:
        pixels = np.concatenate([_thumbnails(table.column(PICTURE)) for table in tables])
        parts = [directions(pixels - pixels.mean(axis=0), width), pixels.mean(axis=1)[:, None]]
    else:
        texts = [text for table in tables for text in texts_of(table)]
        parts = [directions(_words(texts), width), _shape(texts)]
    parts.append(_labels(tables))
    made = np.concatenate(parts, axis=1)
    return made[: len(members)], made[len(members) :]


def texts_of(table: Table) -> list[str]:
    """All that a row says, in one text: of pairs both."""
    texts = [str(text or "") for text in table.column("text")]
    if not table.has_pairs:
        return texts
    return [
        f"{one}\n{two or ''}" for one, two in zip(texts, table.column("text_pair"), strict=True)
    ]


def directions(table: Any, width: int) -> Floats:
    """The rows of a table [n, d], dense or sparse, on its ``width`` strongest directions, each with
    a deviation of 1. Raises ``DataError`` where they cannot be found."""
    from scipy.sparse.linalg import ArpackError, svds

    kept = min(width, min(table.shape) - 1)
    if kept < 1 or not abs(table).sum():
        return np.zeros((table.shape[0], 1))
    # The start vector decides signs: a fixed one makes equal rows equal numbers. It must not be
    # all ones, which centred columns take to nothing.
    first = generator(0, "directions").standard_normal(min(table.shape))
    try:
        left, sizes, _ = svds(table.astype(np.float64), k=kept, v0=first)
    except ArpackError as error:
        rule = f"have no strongest directions that could be found ({error})"
        raise DataError("the rows that are compared", rule, None, "Other rows may have.") from error
    left = left[:, sizes > 1e-9][:, ::-1]
    return np.asarray(left * np.sqrt(len(left)))


def _words(texts: Sequence[str]) -> Any:
    """Which words stand in each text [n, 4096], hashed, each row of length 1."""
    from scipy.sparse import csr_array

    columns: list[int] = []
    ends = [0]
    for text in texts:
        words = set(_WORD.findall(text[:MOST_CHARACTERS].casefold()))
        columns += sorted({zlib.crc32(word.encode("utf-8", "replace")) % BUCKETS for word in words})
        ends.append(len(columns))
    counts = np.maximum(np.diff(ends), 1)
    weights = np.repeat(1 / np.sqrt(counts), np.diff(ends))
    at = np.asarray(columns, dtype=np.int32)
    rarity = np.log1p(len(texts) / np.maximum(np.bincount(at, minlength=BUCKETS), 1))
    return csr_array((weights * rarity[at], at, np.asarray(ends)), shape=(len(texts), BUCKETS))


def _shape(texts: Sequence[str]) -> Floats:
    """Log length and words, and the shares of digits, capitals and marks [n, 5]."""
    rows = []
    for text in texts:
        text = text[:MOST_CHARACTERS]
        n = max(1, len(text))
        digits = sum(map(str.isdigit, text)) / n
        capitals = sum(map(str.isupper, text)) / n
        marks = sum(not c.isalnum() and not c.isspace() for c in text) / n
        rows.append([np.log(n), np.log1p(len(text.split())), digits, capitals, marks])
    return _scaled(np.asarray(rows, dtype=np.float64).reshape(-1, 5))


def _labels(tables: Sequence[Table]) -> Floats:
    """The class of each row as one of so many, the most frequent fifty; a number as it is."""
    names = tables[0].rows.column_names
    if "value" in names:
        values = np.concatenate([np.asarray(t.column("value"), dtype=float) for t in tables])
        return _scaled(np.nan_to_num(values)[:, None])
    if "label" not in names:
        return np.zeros((sum(map(len, tables)), 0))
    labels = np.concatenate([np.asarray(t.column("label")) for t in tables])
    known, counts = np.unique(labels, return_counts=True)
    kept = known[np.argsort(-counts, kind="stable")[:MOST_CLASSES]]
    if len(kept) < 2:
        return np.zeros((len(labels), 0))
    return _scaled((labels[:, None] == kept[None]).astype(np.float64))


def _scaled(table: Floats) -> Floats:
    spread = table.std(axis=0)
    return np.asarray((table - table.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))


def _thumbnails(paths: Sequence[str]) -> Floats:
    """Pictures as 8 × 8 colours [n, 192]."""
    from pathlib import Path

    from holdfast.data.pictures import Unreadable, read_picture

    made = np.zeros((len(paths), SIDE * SIDE * 3))
    for at, path in enumerate(paths):
        try:
            picture = read_picture(Path(path)).image
        except Unreadable as error:
            remedy = "Restore it."
            raise DataError(str(path), "can no longer be read", str(error), remedy) from error
        small = np.asarray(picture.resize((SIDE, SIDE)))
        made[at] = small.reshape(-1) / 255
    return made
