"""Python objects of any kind as one Arrow column that a Parquet file can hold: typed where they are
of one kind, else as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.data.cells import too_deep, write_json_cell
from holdfast.data.limits import DEPTH
from holdfast.data.readers.values import spell

_INNER = (list, tuple, dict)


def array_of(values: Sequence[object]) -> pa.Array:
    """The values as they are, where Arrow has one type for them all; else as texts.

    Raises whatever the values themselves raise when they are asked for their text.
    """
    check_depth(values)
    try:
        found = pa.array(values)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return spelled(values)
    return kept_or_spelled(found)


def kept_or_spelled(found: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as it is, if a Parquet file can hold it; else as texts (an object without fields,
    intervals, and the like)."""
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    # Texts of more than two gigabytes stay in chunks.
    if isinstance(found, pa.ChunkedArray) or _is_plain(found.type):
        return found
    odd = isinstance(found.type, pa.BaseExtensionType) or not _writable(found)
    return spelled(_listed(found)) if odd else found


def spelled(values: Sequence[object]) -> pa.Array:
    """Every value as the text that a source would write for it; lists and objects as JSON."""
    return pa.array([_text(value) for value in values], pa.string())


def check_depth(values: Sequence[object]) -> None:
    """Refuse lists in lists without end: Arrow follows them until the process dies.

    Raises ``ValueError``.
    """
    level: Sequence[Any] = [v for v in values if isinstance(v, _INNER)]
    for _ in range(DEPTH):
        if not level:
            return
        # By identity: a list that stands a million times is looked at once a level.
        inner = {
            id(item): item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, _INNER)
        }
        level = list(inner.values())
    raise too_deep()


def _is_plain(type_: pa.DataType) -> bool:
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return True
    return bool(pa.types.is_primitive(type_) and not pa.types.is_interval(type_))


def _writable(found: pa.Array) -> bool:
    import pyarrow.parquet as parquet

    try:
        # Tried, as no list of types says what the installed version can write.
        parquet.write_table(pa.table({"x": found}), pa.BufferOutputStream())
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return False
    return True


def _listed(found: pa.Array) -> list[Any]:
    """The values of a column as Python has them; of a dictionary of odd things, as shown."""
    try:
        return list(found.to_pylist())
    except (pa.ArrowException, ValueError, TypeError, KeyError):
        return [str(value) if value.is_valid else None for value in found]


def _text(value: object) -> str | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple, Mapping)):
        try:
            return write_json_cell(dict(value) if isinstance(value, Mapping) else value)
        except TypeError:
            return str(value)
    text = spell(value)
    if text is not None:
        text.encode("utf-8")
    return None if type(value).__name__ in ("NAType", "NaTType") else text
