"""Typed values to the strings that a source would write for them."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa

from holdfast.data.raw import Batch, Kind

_KINDS: dict[type, Kind] = {str: "text", bool: "boolean", int: "integer", float: "float"}


def spell(value: Any) -> str | None:
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


def batch_of_objects(objects: list[dict[str, Any]]) -> Batch:
    """Objects with any keys, as strings; a list or an object inside makes its column nested, and is
    written as JSON."""
    names = dict.fromkeys(name for item in objects for name in item)
    columns: dict[str, pa.Array] = {}
    kinds: dict[str, set[Kind]] = {}
    for name in names:
        values = [item.get(name) for item in objects]
        kinds[name] = {_KINDS.get(kind, "nested") for kind in set(map(type, values)) - {type(None)}}
        if "nested" in kinds[name]:
            values = [json.dumps(v) if isinstance(v, (list, dict)) else v for v in values]
        columns[name] = pa.array([spell(value) for value in values], pa.string())
    return Batch(columns, kinds)
