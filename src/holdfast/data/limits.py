"""How much a source may ask for: every bound with its reason, and how to raise it.

A file of a few megabytes can hold a cell of gigabytes, an image of billions of pixels or a
million columns. Each bound below is far beyond what data of people hold, and keeps what a small
file can cost under a gigabyte and some seconds. What a person may rightly need more of is a setting
(``data.limits.…``), and the error names it; the rest are constants.

The limits in force are set once, where a command begins to read (``use_limits``), and not handed
through every reader: they say nothing about what the rows mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from holdfast.core.errors import DataError

MB = 1_000_000

# A column's name is told to people, and is a key of recipes, results and reports.
NAME_CHARACTERS = 1_000
# A cell of labels that is longer holds millions of them, and is looked through several times.
LABELS_CHARACTERS = 1_000_000
# JSON within JSON is read, written and read again, each time one call deeper a level.
DEPTH = 100
# A compressed file may always unpack to so much, however well it was packed: a table of one
# sentence, repeated, is no attack.
UNPACKED_FREELY = 64 * MB
# A JSON document that is no list is held whole, and a list or an object takes up to 230 bytes.
DOCUMENT_VALUES = 2_000_000
# Rows that take less than a byte each of their file are an attack once there are many: a row costs
# about 250 bytes of memory, whatever it holds.
ROWS_FREELY = 500_000
# A processor that makes the shorter side 224 pixels makes the longer one 224 × this.
ASPECT = 200
# Values of one batch: a table of many columns is read in fewer rows at a time.
BATCH_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What ``data.limits`` sets.

    ``cell_mb``: the longest cell, and the longest row of a text file, in million characters: a
    reader holds a row whole, several times over, and so does a tokenizer. ``columns``: each is
    looked at, whether it is used or not. ``classes``: the head, and the probabilities of every row,
    grow with them. ``unpacked``: how many times its own size a compressed file may hold.
    ``megapixels``: an image is decoded whole, which takes some twelve bytes a pixel.
    """

    cell_mb: float = 8
    columns: int = 2_000
    classes: int = 10_000
    unpacked: float = 100
    megapixels: float = 33

    @property
    def cell(self) -> int:
        """The longest cell in characters."""
        return int(self.cell_mb * MB)

    @property
    def pixels(self) -> int:
        return int(self.megapixels * MB)


_DEFAULT = Limits()
# A context of its own in every thread and task: two runs in one process have their own limits.
_CURRENT: ContextVar[Limits | None] = ContextVar("limits", default=None)


def current_limits() -> Limits:
    """Those in force."""
    return _CURRENT.get() or _DEFAULT


@contextlib.contextmanager
def use_limits(new_limits: Limits) -> Iterator[None]:
    """Read with these limits."""
    token = _CURRENT.set(new_limits)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def limit_error(source: str, rule: str, key: str, value: object, remedy: str = "") -> DataError:
    """The error of a source that goes beyond a limit that can be raised."""
    first = f"{remedy} " if remedy else ""
    return DataError(source, rule, value, f"{first}If it is right: --set data.limits.{key}=…")


def check_row(where: str, characters: int, hint: str = "") -> None:
    """Refuse a row or a cell of more characters than ``data.limits.cell_mb`` allows."""
    if characters > current_limits().cell:
        raise limit_error(
            where,
            f"holds more than {current_limits().cell_mb:g} million characters in one row or cell",
            "cell_mb",
            None,
            hint or "Give one text a row.",
        )


def check_columns(where: str, names: Sequence[str]) -> None:
    """Refuse more columns than ``data.limits.columns``, and a name too long to be told."""
    if len(names) > current_limits().columns:
        raise limit_error(
            where,
            f"has more than {current_limits().columns:,} columns",
            "columns",
            f"{len(names):,}",
            "Keep the text, the label and what belongs to them.",
        )
    for place, name in enumerate(names, 1):
        if len(name) > NAME_CHARACTERS:
            raise DataError(
                f"{where}, column {place}",
                f"has a name of more than {NAME_CHARACTERS:,} characters",
                name[:40] + "…",
                "Give it a short name; a file without a header needs one.",
            )


def check_classes(where: str, count: int) -> None:
    """Refuse more classes than ``data.limits.classes``."""
    if count > current_limits().classes:
        raise limit_error(
            where,
            f"has more than {current_limits().classes:,} classes",
            "classes",
            f"{count:,}",
            "Choose the column of classes with --label, or join the rare ones: "
            "--set data.rare=merge.",
        )


def check_unpacked(where: str, packed: int, unpacked: int) -> None:
    """Refuse a compressed file of ``packed`` bytes that holds too many times its size."""
    if unpacked > max(UNPACKED_FREELY, current_limits().unpacked * packed):
        raise limit_error(
            where,
            f"unpacks to more than {current_limits().unpacked:g} times its size",
            "unpacked",
            f"{packed:,} bytes, of which came {unpacked:,} and more",
            "Give its rows as plain CSV or JSON lines.",
        )


def check_rows(where: str, packed: int, rows: int) -> None:
    """Refuse a compressed file of ``packed`` bytes with more rows than bytes (more bytes a row, or
    fewer, as ``data.limits.unpacked`` is set)."""
    if rows > max(ROWS_FREELY, packed * current_limits().unpacked / _DEFAULT.unpacked):
        raise limit_error(
            where,
            f"holds more than {ROWS_FREELY:,} rows, and more of them than bytes",
            "unpacked",
            f"{rows:,} rows in {packed:,} bytes",
            "Give its rows as plain CSV or JSON lines.",
        )
