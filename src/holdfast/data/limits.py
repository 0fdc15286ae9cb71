"""Limits on what a source may contain, each with its reason and the way to raise it.

A file of a few megabytes can hold a cell of gigabytes, an image of billions of pixels or a
million columns. Each limit below is far beyond real data, and keeps the cost of a small file under
a gigabyte of memory and a few seconds. A limit that real data may exceed is a setting
(``data.limits.…``), and its error names it; the others are constants.

A command sets its limits once, before it reads (``use_limits``). They are not passed through every
reader, since they do not change what the rows mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from holdfast.core.errors import DataError

MB = 1_000_000

# A column's name appears in messages, and is a key of recipes, results and reports.
NAME_CHARACTERS = 1_000
# A longer cell holds millions of labels, and it is scanned several times.
LABELS_CHARACTERS = 1_000_000
# JSON within JSON is parsed and written recursively: one call deeper for each level.
DEPTH = 100
# A compressed file may always unpack to this size, at any ratio: a table that repeats one sentence
# compresses well and is harmless.
UNPACKED_FREELY = 64 * MB
# A JSON document that is not a list is held in memory; a list or an object takes up to 230 bytes.
DOCUMENT_VALUES = 2_000_000
# Many rows that take less than one byte each in the file are an attack: each row costs about 250
# bytes of memory, whatever it holds.
ROWS_FREELY = 500_000
# A processor that scales the shorter side to 224 pixels makes the longer one 224 × this.
ASPECT = 200
# Values in one batch: a table with many columns is read with fewer rows at a time.
BATCH_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of ``data.limits``.

    ``cell_mb``: the longest cell, and the longest row of a text file, in millions of characters. A
    reader and a tokenizer hold several copies of a row. ``columns``: every column is profiled,
    whether it is used or not. ``classes``: the size of the head, and of each row's probabilities,
    grows with them. ``unpacked``: how many times its own size a compressed file may unpack to.
    ``megapixels``: an image is decoded at full size, which takes about 12 bytes a pixel.
    """

    cell_mb: float = 8
    columns: int = 2_000
    classes: int = 10_000
    unpacked: float = 100
    megapixels: float = 33

    @property
    def cell(self) -> int:
        """The longest cell, in characters."""
        return int(self.cell_mb * MB)

    @property
    def pixels(self) -> int:
        return int(self.megapixels * MB)


_DEFAULT = Limits()
# A context variable: two runs in one process, in threads or tasks, have their own limits.
_CURRENT: ContextVar[Limits | None] = ContextVar("limits", default=None)


def current_limits() -> Limits:
    """The limits in force."""
    return _CURRENT.get() or _DEFAULT


@contextlib.contextmanager
def use_limits(new_limits: Limits) -> Iterator[None]:
    """Read with these limits inside the ``with`` block."""
    token = _CURRENT.set(new_limits)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def limit_error(source: str, rule: str, key: str, value: object, remedy: str = "") -> DataError:
    """The error of a source that exceeds a limit that can be raised."""
    first = f"{remedy} " if remedy else ""
    return DataError(
        source, rule, value, f"{first}To allow it, raise the limit: --set data.limits.{key}=…"
    )


def check_row(where: str, characters: int, hint: str = "") -> None:
    """Refuse a row or a cell with more characters than ``data.limits.cell_mb`` allows."""
    if characters > current_limits().cell:
        raise limit_error(
            where,
            f"holds more than {current_limits().cell_mb:g} million characters in one row or cell",
            "cell_mb",
            None,
            hint or "Write one text per row.",
        )


def check_columns(where: str, names: Sequence[str]) -> None:
    """Refuse more columns than ``data.limits.columns``, and a name that is too long."""
    if len(names) > current_limits().columns:
        raise limit_error(
            where,
            f"has more than {current_limits().columns:,} columns",
            "columns",
            f"{len(names):,}",
            "Keep the text column, the label column and those that you need.",
        )
    for place, name in enumerate(names, 1):
        if len(name) > NAME_CHARACTERS:
            rule = f"has a name of more than {NAME_CHARACTERS:,} characters"
            remedy = "Give it a short name. If the file has no header line, add one."
            raise DataError(f"{where}, column {place}", rule, name[:40] + "…", remedy)


def check_classes(where: str, count: int) -> None:
    """Refuse more classes than ``data.limits.classes``."""
    if count > current_limits().classes:
        raise limit_error(
            where,
            f"has more than {current_limits().classes:,} classes",
            "classes",
            f"{count:,}",
            "Choose the column of classes with --label, or merge rare classes: "
            "--set data.rare_classes=merge.",
        )


def check_unpacked(where: str, packed: int, unpacked: int) -> None:
    """Refuse a compressed file of ``packed`` bytes that unpacks to too many times its size."""
    if unpacked > max(UNPACKED_FREELY, current_limits().unpacked * packed):
        raise limit_error(
            where,
            f"unpacks to more than {current_limits().unpacked:g} times its size",
            "unpacked",
            f"{packed:,} bytes, unpacked so far: {unpacked:,}",
            "Give the rows as plain CSV or JSON lines.",
        )


def check_rows(where: str, packed: int, rows: int) -> None:
    """Refuse a compressed file of ``packed`` bytes with more rows than bytes. The allowed rows per
    byte grow with ``data.limits.unpacked``."""
    if rows > max(ROWS_FREELY, packed * current_limits().unpacked / _DEFAULT.unpacked):
        raise limit_error(
            where,
            f"holds more than {ROWS_FREELY:,} rows, and more rows than bytes",
            "unpacked",
            f"{rows:,} rows in {packed:,} bytes",
            "Give the rows as plain CSV or JSON lines.",
        )
