"""Cell values as strings: numbers and booleans in full, lists and objects as JSON of bounded depth.

Also writes rows as CSV or TSV. Every reader gives the same cells for the same values.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.data.limits import DEPTH
from holdfast.data.raw import Batch, ColumnType

# A surrogate pair, as two escapes, is one character; half of a pair is no character.
SURROGATE_ESCAPE = "\\ud"


def read_json_cell(text: str) -> Any:
    """The value of a JSON cell.

    Raises ``ValueError`` where ``text`` is not usable JSON. That includes JSON nested too deeply,
    an integer with too many digits, and half of a surrogate pair, which no file can hold as text.
    """
    try:
        value = json.loads(text)
        # Only an escape can produce half of a pair; other cells skip the check below.
        if SURROGATE_ESCAPE in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        # A single error type for all unusable cells: callers then treat the cell as plain text.
        raise ValueError("it is nested too deeply") from None
    return value


def write_json_cell(value: object) -> str:
    """``value`` as strict JSON. NaN becomes ``null``, and an infinity the text ``inf``.

    Raises ``ValueError`` where it is nested more than ``DEPTH`` levels deep, ``TypeError`` where it
    holds a value that JSON cannot represent.
    """
    try:
        written = json.dumps(value, allow_nan=False)
    except RecursionError:
        raise too_deep_error() from None
    except ValueError:
        written = json.dumps(_with_finite_numbers(value, DEPTH), allow_nan=False)
    # Every level costs a bracket, so a cell with few brackets cannot be nested too deeply.
    if written.count("[") + written.count("{") > DEPTH:
        _with_finite_numbers(value, DEPTH)
    return written


def too_deep_error() -> ValueError:
    return ValueError(f"it is nested more than {DEPTH} levels deep")


def _with_finite_numbers(value: object, levels: int) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None if value != value else str(value)
    if not isinstance(value, (list, tuple, dict)):
        return value
    if not levels:
        raise too_deep_error()
    if isinstance(value, dict):
        return {name: _with_finite_numbers(item, levels - 1) for name, item in value.items()}
    return [_with_finite_numbers(item, levels - 1) for item in value]


_COLUMN_TYPES: dict[type, ColumnType] = {
    str: "text",
    bool: "boolean",
    int: "integer",
    float: "float",
}


def cell_text(value: object) -> str | None:
    """The value as text: ``true`` or ``false`` for a boolean, the shortest decimal for a number
    (``2`` for 2.0, as Arrow writes it), ``None`` for NaN."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _nested_cell(source: str, name: str, value: object) -> str:
    try:
        return write_json_cell(value)
    except ValueError as error:
        rule = f"holds a list or an object that cannot be stored: {error}"
        remedy = "Remove the column, or write plain values into it."
        raise DataError(f"{source}, column {name!r}", rule, None, remedy) from error


def batch_of_objects(objects: Sequence[Mapping[str, object]], source: str) -> Batch:
    """Objects with any keys, as strings. A column with a list or an object is marked as nested,
    and its values are written as JSON."""
    names = dict.fromkeys(name for item in objects for name in item)
    columns: dict[str, pa.Array] = {}
    column_types: dict[str, set[ColumnType]] = {}
    for name in names:
        values = [item.get(name) for item in objects]
        column_types[name] = {
            _COLUMN_TYPES.get(value_type, "nested")
            for value_type in set(map(type, values)) - {type(None)}
        }
        if "nested" in column_types[name]:
            values = [
                _nested_cell(source, name, v) if isinstance(v, (list, dict)) else v for v in values
            ]
        columns[name] = pa.array([cell_text(value) for value in values], pa.string())
    return Batch(columns, column_types)


# First characters of a text that a spreadsheet runs as a formula (OWASP, CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class _BareNewlines:
    """Ends each record with a bare newline.

    The CSV writer is told that records end with both marks: before Python 3.13 it quotes only its
    own line ending, and other readers take a bare carriage return for the end of a record.
    """

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def write(self, record: str) -> None:
        self._text.write(record.removesuffix("\r\n") + "\n")


def write_delimited(
    text: IO[str],
    names: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    delimiter: str = ",",
    safe: bool = False,
) -> None:
    """Write the header and the rows: an empty cell for a missing value, ``true`` and ``false`` for
    booleans, JSON for lists and objects. With ``safe``, a text that a spreadsheet would run as a
    formula gets a leading apostrophe; numbers stay as they are."""
    writer = csv.writer(_BareNewlines(text), delimiter=delimiter, lineterminator="\r\n")
    writer.writerow([_written_cell(name, safe) for name in names])
    writer.writerows([_written_cell(value, safe) for value in row] for row in rows)


def _written_cell(value: object, safe: bool) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if safe and isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value
