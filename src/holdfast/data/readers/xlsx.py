"""Excel workbooks (.xlsx): the first sheet that holds cells, its first row the names.

By openpyxl, row by row, so that memory stays bounded. A formula gives the value that was saved with
it; a date its ISO form; a cell of white space or none is missing. Old ``.xls`` files are refused.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from holdfast.core.errors import DataError, MachineError
from holdfast.core.input_errors import door
from holdfast.core.records import Decision
from holdfast.data.limits import check_columns, check_row, check_unpacked
from holdfast.data.raw import BATCH_CHARACTERS, Batch, Kind, batch_rows, refuse_repeated
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import unpacked
from holdfast.data.readers.values import spell

if TYPE_CHECKING:
    from openpyxl import Workbook

# Of the format: what goes on below was never written by a spreadsheet.
_LAST_ROW = 1_048_576
# The container of ``.xls`` files, and of workbooks that a password protects.
_OLE = b"\xd0\xcf\x11\xe0"
_AGAIN = "Save it again as .xlsx, without a password, or export the sheet as CSV."
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_KINDS: dict[type, Kind] = {bool: "boolean", int: "integer", float: "float"}


def read_xlsx(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a workbook; ``encoding`` does not apply."""
    with _opened(path) as book:
        sheet, rows, decisions = _first_sheet(path, book)
        names = _header(path, sheet, next(rows))
        yield Batch({name: pa.array([], pa.string()) for name in names}, {}, decisions)
        cells: list[list[Any]] = []
        characters = 0
        for number, row in enumerate(rows, 2):
            _refuse_below(path, sheet, number)
            # openpyxl leaves empty cells at the end of a row out.
            values = list(row[: len(names)]) + [None] * (len(names) - len(row))
            _refuse_beyond(path, sheet, number, row[len(names) :])
            if all(_is_blank(value) for value in values):
                continue
            cells.append(values)
            length = sum(len(value) for value in values if isinstance(value, str))
            check_row(f"{path}, sheet {sheet!r}, row {number}", length)
            characters += length
            if len(cells) == batch_rows(len(names)) or characters > BATCH_CHARACTERS:
                yield _batch(names, cells)
                cells, characters = [], 0
        if cells:
            yield _batch(names, cells)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import openpyxl
    except ImportError:
        raise MachineError(
            str(path),
            "is an Excel workbook, and openpyxl, which reads them, is not installed",
            None,
            "pip install 'holdfast[excel]', or save the sheet as CSV.",
        ) from None
    with unpacked(path, ".xlsx").open("rb") as stream, warnings.catch_warnings():
        # It warns of what it does not read: charts, validation, styles.
        warnings.simplefilter("ignore")
        _check_zip(path, stream)
        with door(str(path), DataError, "is not a readable Excel workbook", _AGAIN):
            # Values as saved: nothing here computes a formula.
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        try:
            yield book
        finally:
            book.close()


def _check_zip(path: Path, stream: BinaryIO) -> None:
    """Refuse what is no workbook, and one that holds far more than it weighs. The sizes that a ZIP
    states are the most that is ever read of it."""
    if stream.read(len(_OLE)) == _OLE:
        raise DataError(
            str(path), "is an old Excel file, or one that a password protects", None, _AGAIN
        )
    stream.seek(0)
    with (
        door(str(path), DataError, "is not a readable Excel workbook", _AGAIN),
        zipfile.ZipFile(stream) as parts,
    ):
        check_unpacked(
            str(path), path.stat().st_size, sum(part.file_size for part in parts.infolist())
        )
    stream.seek(0)


def _first_sheet(
    path: Path, book: Workbook
) -> tuple[str, Iterator[Sequence[object]], tuple[Decision, ...]]:
    """The name of the first sheet with cells, its rows from the first that is not blank, and which
    others were passed over."""
    for sheet in book.worksheets:
        # The sheet's own word for its size is often wrong, and rows are filled up to it.
        sheet.reset_dimensions()
        rows = sheet.iter_rows(values_only=True)
        for number, row in enumerate(rows, 1):
            _refuse_below(path, sheet.title, number)
            if not all(_is_blank(value) for value in row):
                others = [name for name in book.sheetnames if name != sheet.title]
                because = f"it is the first with cells; not read: {', '.join(others)}"
                decisions = (Decision("sheet", sheet.title, because),) if others else ()
                return sheet.title, _after(row, rows), decisions
    raise DataError(str(path), "is empty", None, "It needs a header row and rows below it.")


def _after(first: Sequence[object], rows: Iterator[Sequence[object]]) -> Iterator[Sequence[object]]:
    yield first
    yield from rows


def _header(path: Path, sheet: str, row: Sequence[object]) -> list[str]:
    names = [str(value).strip() if not _is_blank(value) else "" for value in row]
    # Cells that were emptied or only formatted still count as cells of the sheet.
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise DataError(
            f"{path}, sheet {sheet!r}",
            "has a column without a name in its first row",
            f"column {names.index('') + 1}",
            "Give every column of the header a name.",
        )
    check_columns(f"{path}, sheet {sheet!r}", names)
    refuse_repeated(
        f"{path}, sheet {sheet!r}", names, "Give each column of the header a name of its own."
    )
    return names


def _refuse_below(path: Path, sheet: str, row: int) -> None:
    if row > _LAST_ROW:
        raise DataError(
            f"{path}, sheet {sheet!r}",
            f"goes on below row {_LAST_ROW:,}, the last of a sheet",
            None,
            _AGAIN,
        )


def _refuse_beyond(path: Path, sheet: str, row: int, cells: Sequence[object]) -> None:
    extra = next((value for value in cells if not _is_blank(value)), None)
    if extra is not None:
        raise DataError(
            f"{path}, sheet {sheet!r}, row {row}",
            "has a cell beyond the columns of the header",
            extra,
            "Give its column a name in the first row, or delete it.",
        )


def _batch(names: list[str], cells: Sequence[Sequence[object]]) -> Batch:
    columns: dict[str, pa.Array] = {}
    kinds: dict[str, set[Kind]] = {}
    for name, values in zip(names, zip(*cells, strict=True), strict=True):
        found = {_KINDS.get(type(value), "text") for value in values if value is not None}
        kinds[name] = set(found)
        columns[name] = pa.array([_spelled(value) for value in values], pa.string())
    return Batch(columns, kinds)


def _spelled(value: object) -> str | None:
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, str) and "_x" in value:
        # The format's own way to write a character that XML drops, a carriage return above all.
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
    return spell(value)


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


READERS.add("xlsx", Reader(".xlsx", read_xlsx))
