"""Excel workbooks (.xlsx): the first sheet that has cells, with column names in its first row.

Read by openpyxl, row by row, so that memory stays bounded. A formula gives the value that was saved
with it; a date its ISO form; an empty cell or only white space is missing. Old ``.xls`` files are
refused.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.input_errors import reading_errors
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision
from holdfast.data.cells import cell_text
from holdfast.data.limits import check_row, check_unpacked
from holdfast.data.raw import Batch, ColumnType, batch_rows, batched, check_column_names
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import unpack

if TYPE_CHECKING:
    from openpyxl import Workbook

# Limits of the format: no spreadsheet program writes cells beyond them.
_LAST_ROW = 1_048_576
# The container format of ``.xls`` files and of password-protected workbooks.
_OLE = b"\xd0\xcf\x11\xe0"
_SAVE_AGAIN = "Save it again as .xlsx, without a password, or export the sheet as CSV."
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_COLUMN_TYPES: dict[type, ColumnType] = {bool: "boolean", int: "integer", float: "float"}


def read_xlsx(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a workbook; ``encoding`` does not apply."""
    with _open_workbook(path) as book:
        sheet, rows = _first_sheet(path, book)
        names = _header(path, sheet, next(rows))
        yield Batch({name: pa.array([], pa.string()) for name in names})
        cells = _cells(path, sheet, rows, len(names))
        for lot in batched(cells, lambda: batch_rows(len(names))):
            columns: dict[str, pa.Array] = {}
            column_types: dict[str, set[ColumnType]] = {}
            for name, values in zip(names, zip(*lot, strict=True), strict=True):
                column_types[name] = {
                    _COLUMN_TYPES.get(type(v), "text") for v in values if v is not None
                }
                columns[name] = pa.array([_cell_text(value) for value in values], pa.string())
            yield Batch(columns, column_types)


def _cells(
    path: Path, sheet: str, rows: Iterator[Sequence[object]], width: int
) -> Iterator[tuple[list[object], int]]:
    """The rows that are not blank, each with its number of characters."""
    for number, row in enumerate(rows, 2):
        _refuse_below(path, sheet, number)
        where = f"{path}, sheet {sheet!r}, row {number}"
        # openpyxl omits empty cells at the end of a row.
        values = list(row[:width]) + [None] * (width - len(row))
        extra = next((value for value in row[width:] if not _is_blank(value)), None)
        if extra is not None:
            remedy = (
                "Name its column in the first row, or delete the cell. If the first row is a "
                "title, remove that row."
            )
            raise DataError(where, "has a cell beyond the columns of the header", extra, remedy)
        if not all(map(_is_blank, values)):
            length = sum(len(value) for value in values if isinstance(value, str))
            check_row(where, length)
            yield values, length


@contextlib.contextmanager
def _open_workbook(path: Path) -> Iterator[Any]:
    need_packages(
        str(path), "openpyxl", install="'holdfast[excel]'", otherwise="save the sheet as CSV"
    )
    import openpyxl

    with unpack(path, ".xlsx").open("rb") as stream, warnings.catch_warnings():
        # openpyxl warns about content that it does not read: charts, validation, styles.
        warnings.simplefilter("ignore")
        if stream.read(len(_OLE)) == _OLE:
            rule = "is an old Excel file, or is protected by a password"
            raise DataError(str(path), rule, None, _SAVE_AGAIN)
        stream.seek(0)
        with reading_errors(str(path), DataError, "is not a readable Excel workbook", _SAVE_AGAIN):
            # openpyxl never reads more than the sizes that the ZIP declares.
            with zipfile.ZipFile(stream) as parts:
                unpacks = sum(part.file_size for part in parts.infolist())
            check_unpacked(str(path), path.stat().st_size, unpacks)
            stream.seek(0)
            # Values as saved: openpyxl does not compute formulas.
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        try:
            yield book
        finally:
            book.close()


def _first_sheet(path: Path, book: Workbook) -> tuple[str, Iterator[Sequence[object]]]:
    """The name of the first sheet with cells, and its rows from the first that is not blank."""
    for sheet in book.worksheets:
        # The declared size of a sheet is often wrong, and openpyxl pads rows to it.
        sheet.reset_dimensions()
        rows = sheet.iter_rows(values_only=True)
        for number, row in enumerate(rows, 1):
            _refuse_below(path, sheet.title, number)
            if not all(_is_blank(value) for value in row):
                others = [name for name in book.sheetnames if name != sheet.title]
                if others:
                    because = f"it is the first sheet with cells; not read: {', '.join(others)}"
                    notify(Decision("sheet", sheet.title, because))
                return sheet.title, itertools.chain([row], rows)
    raise DataError(str(path), "is empty", None, "Add a header row and rows below it.")


def _header(path: Path, sheet: str, row: Sequence[object]) -> list[str]:
    names = [str(value).strip() if not _is_blank(value) else "" for value in row]
    # Cells that were emptied or only formatted still count as cells of the sheet.
    while names and not names[-1]:
        names.pop()
    if "" in names:
        rule = "has a column without a name in its first row"
        remedy = "Give every column of the header a name."
        raise DataError(f"{path}, sheet {sheet!r}", rule, f"column {names.index('') + 1}", remedy)
    check_column_names(f"{path}, sheet {sheet!r}", names)
    return names


def _refuse_below(path: Path, sheet: str, row: int) -> None:
    if row > _LAST_ROW:
        rule = f"has cells below row {_LAST_ROW:,}, the last of a sheet"
        raise DataError(f"{path}, sheet {sheet!r}", rule, None, _SAVE_AGAIN)


def _cell_text(value: object) -> str | None:
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, str) and "_x" in value:
        # The format's escape for a character that XML drops, such as a carriage return.
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
    return cell_text(value)


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


READERS.add("xlsx", Reader(".xlsx", read_xlsx))
