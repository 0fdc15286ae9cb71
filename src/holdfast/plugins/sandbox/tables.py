"""The cell of a row's table → columns and rows. Standard library only.

A cell is JSON in one of these forms: a list of objects, one a row; ``{"columns" | "header": […],
"rows": [[…]]}``; an object of columns, ``{"name": […]}``; or ``{"tables": {name: any of these}}``.
"""

from __future__ import annotations

import json
from typing import Any

Table = tuple[list[str], list[list[Any]]]
ALONE = "t"


def tables_of(cell: str) -> dict[str, Table]:
    """The tables of a cell by name; one alone is called ``t``. Raises ``ValueError``."""
    parsed = json.loads(cell)
    if isinstance(parsed, dict) and isinstance(parsed.get("tables"), dict):
        return {str(name): _table(table) for name, table in parsed["tables"].items()}
    return {ALONE: _table(parsed)}


def _table(value: Any) -> Table:
    if isinstance(value, list):
        names = list(dict.fromkeys(str(key) for row in value for key in row))
        return names, [[row.get(name) for name in names] for row in value]
    if not isinstance(value, dict):
        raise ValueError("a table is a list of objects, or an object")
    columns = value.get("columns", value.get("header"))
    if isinstance(columns, list) and isinstance(value.get("rows"), list):
        rows = [list(row) for row in value["rows"]]
        if any(len(row) != len(columns) for row in rows):
            raise ValueError("a row of a table has as many cells as there are columns")
        return [str(c) for c in columns], rows
    values = [list(column) for column in value.values()]
    if len({len(column) for column in values}) > 1:
        raise ValueError("the columns of a table are of one length")
    return [str(c) for c in value], [list(row) for row in zip(*values, strict=True)]
