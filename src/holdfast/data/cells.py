"""Values of a source as strings: numbers and booleans spelled out, lists and objects as JSON, read
and written back within bounds; and rows as CSV or TSV, from which every reader gets the same cells.
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

# How a surrogate is written out: two of them are one character, a single one is none.
SURROGATE_ESCAPE = "\\ud"


def read_json_cell(text: str) -> Any:
    """The value of a cell. Raises ``ValueError`` for whatever is no JSON that can be used: also for
    what is nested too deeply, for a whole number too long to be one, and for half of a surrogate
    pair, which no file can hold as text."""
    try:
        value = json.loads(text)
        # Only an escape can make half of a pair; other cells are spared the second look.
        if SURROGATE_ESCAPE in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        # One error for whatever cannot be used: who reads a cell takes it for no JSON.
        raise ValueError("it is nested too deeply") from None
    return value


def write_json_cell(value: object) -> str:
    """``value`` as JSON that any reader takes: where it holds numbers that JSON has none for, NaN
    is ``null`` and an infinity the text ``inf``.

    Raises ``ValueError`` where it is nested more than ``DEPTH`` levels deep, ``TypeError`` where it
    holds what JSON has no form for.
    """
    try:
        written = json.dumps(value, allow_nan=False)
    except RecursionError:
        raise too_deep_error() from None
    except ValueError:
        written = json.dumps(_with_finite_numbers(value, DEPTH), allow_nan=False)
    # Every level costs a bracket: a cell of few cannot be nested too deeply.
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
    """``true`` and ``false`` for booleans, the shortest decimal for numbers (``2`` for 2.0, as
    Arrow writes it), ``None`` for NaN."""
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
        raise DataError(
            f"{source}, column {name!r}",
            f"holds a list or an object that is not kept: {error}",
            None,
            "Leave the column out, or write plain values into it.",
        ) from error


def batch_of_objects(objects: Sequence[Mapping[str, object]], source: str) -> Batch:
    """Objects with any keys, as strings; a list or an object inside makes its column nested, and is
    written as JSON."""
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


# What a spreadsheet takes for a formula (OWASP, CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class _BareNewlines:
    """Ends each record with a bare newline. To the writer they end with both marks: before Python
    3.13 it quotes no mark but those of its own, and others read a bare carriage return as an
    end."""

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
    """The header and the rows: nothing for what is missing, ``true`` and ``false``, JSON for lists
    and objects. ``safe``: a text that a spreadsheet would take for a formula gets an apostrophe
    before it; numbers stay as they are."""
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
