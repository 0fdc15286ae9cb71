"""Messages to and from the process that runs code, and the JSON form of a row's table. Standard
library only.

A cell is JSON in one of these forms: a list of objects, one a row; ``{"columns" | "header": […],
"rows": [[…]]}``; an object of columns, ``{"name": […]}``; or ``{"tables": {name: any of these}}``.

A reply is untrusted: a program that broke out of Python could have written it. It is therefore read
within bounds, and anything else becomes an error of that program.
"""

from __future__ import annotations

import json
from typing import Any

Table = tuple[list[str], list[list[Any]]]
SINGLE_TABLE = "t"


def tables_of(cell: str) -> dict[str, Table]:
    """The tables of a cell by name; a single one is called ``t``. Raises ``ValueError``."""
    parsed = json.loads(cell)
    if isinstance(parsed, dict) and isinstance(parsed.get("tables"), dict):
        return {str(name): _table(table) for name, table in parsed["tables"].items()}
    return {SINGLE_TABLE: _table(parsed)}


def _table(value: object) -> Table:
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
        raise ValueError("the columns of a table have the same length")
    return [str(c) for c in value], [list(row) for row in zip(*values, strict=True)]


# A result of a hundred thousand short cells; a question about a table has no larger result.
MOST_BYTES = 4_000_000
# A table is two lists deep, a table of grouped values four.
MAX_DEPTH = 32
# Results are also compared as floating-point numbers, whose range ends here.
MAX_INTEGER = 10**308


def parse(raw: bytes, max_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """``{"result": …}`` or ``{"error": text}``, whatever ``raw`` is, and its ``number``; an error
    where ``raw`` is longer than ``max_bytes``.
    """
    if not raw:
        return {"error": "the process was killed by its limits"}
    if len(raw) > max_bytes:
        return {"error": "ValueError: the result is too large"}
    try:
        answer = json.loads(raw)
    except RecursionError:
        return {"error": "ValueError: the result is nested too deeply"}
    except (ValueError, MemoryError):
        return {"error": "ValueError: the reply is damaged"}
    if not isinstance(answer, dict) or ("result" in answer) == ("error" in answer):
        return {"error": "ValueError: the reply has no result"}
    number = {"number": answer.get("number")}
    if "error" in answer:
        return {**number, "error": str(answer["error"])[:300]}
    reason = result_problem(answer["result"])
    return {**number, "error": f"ValueError: {reason}"} if reason else {**number, **answer}


def result_problem(result: object) -> str | None:
    """Why ``result`` cannot be compared; ``None`` where it can. Any depth is accepted."""
    level = [result]
    for _ in range(MAX_DEPTH):
        if any(isinstance(value, int) and abs(value) > MAX_INTEGER for value in level):
            return "the result has a whole number of more than 308 digits"
        level = [item for value in level for item in _items(value)]
        if not level:
            return None
    return f"the result is nested more than {MAX_DEPTH} levels deep"


def memory_bytes(result: object) -> int:
    """The approximate memory of a result: 64 bytes a value, plus its characters."""
    n_bytes, pending = 0, [result]
    while pending:
        value = pending.pop()
        n_bytes += 64 + (len(value) if isinstance(value, str) else 0)
        pending += _items(value)
    return n_bytes


def _items(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
