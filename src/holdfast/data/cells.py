"""JSON inside a source: lists and objects in cells, read and written back within bounds."""

from __future__ import annotations

import json
import math
from typing import Any

from holdfast.data.limits import DEPTH

# How a surrogate is written out: two of them are one character, a single one is none.
ESCAPED = "\\ud"


def read_json_cell(text: str) -> Any:
    """The value of a cell. Raises ``ValueError`` for whatever is no JSON that can be used: also for
    what is nested too deeply, for a whole number too long to be one, and for half of a surrogate
    pair, which no file can hold as text."""
    try:
        value = json.loads(text)
        # Only an escape can make half of a pair; other cells are spared the second look.
        if ESCAPED in text.lower():
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
        raise too_deep() from None
    except ValueError:
        written = json.dumps(_finite(value, DEPTH), allow_nan=False)
    # Every level costs a bracket: a cell of few cannot be nested too deeply.
    if written.count("[") + written.count("{") > DEPTH:
        _finite(value, DEPTH)
    return written


def too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEPTH} levels deep")


def _finite(value: object, levels: int) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None if value != value else str(value)
    if not isinstance(value, (list, tuple, dict)):
        return value
    if not levels:
        raise too_deep()
    if isinstance(value, dict):
        return {name: _finite(item, levels - 1) for name, item in value.items()}
    return [_finite(item, levels - 1) for item in value]
