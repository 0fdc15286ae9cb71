"""Typed values to the strings that a source would write for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.data.cells import write_json_cell
from holdfast.data.raw import Batch, Kind

_KINDS: dict[type, Kind] = {str: "text", bool: "boolean", int: "integer", float: "float"}


def spell(value: object) -> str | None:
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


def _nested(source: str, name: str, value: object) -> str:
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
    kinds: dict[str, set[Kind]] = {}
    for name in names:
        values = [item.get(name) for item in objects]
        kinds[name] = {_KINDS.get(kind, "nested") for kind in set(map(type, values)) - {type(None)}}
        if "nested" in kinds[name]:
            values = [
                _nested(source, name, v) if isinstance(v, (list, dict)) else v for v in values
            ]
        columns[name] = pa.array([spell(value) for value in values], pa.string())
    return Batch(columns, kinds)
