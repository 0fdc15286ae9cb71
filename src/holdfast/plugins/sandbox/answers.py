"""What a process that runs code may answer. Standard library only.

It is bytes of a stranger: a program that broke out of Python could have written them. So they are
read within bounds, and anything else becomes an error of that program.
"""

from __future__ import annotations

import json
from typing import Any

# A result of a hundred thousand short cells; more is no answer to a question about a table.
MOST_BYTES = 4_000_000
# A table is two lists deep, a table of grouped values four.
DEEPEST = 32
# Results are compared as floating-point numbers too, which end here.
LARGEST = 10**308


def parse(raw: bytes, most: int = MOST_BYTES) -> dict[str, Any]:
    """``{"result": …}`` or ``{"error": text}``, whatever ``raw`` is, and its ``number``; ``most``
    bytes."""
    if not raw:
        return {"error": "the process was killed by its limits"}
    if len(raw) > most:
        return {"error": "ValueError: the result is too large"}
    try:
        answer = json.loads(raw)
    except RecursionError:
        return {"error": "ValueError: the result is nested too deeply"}
    except (ValueError, MemoryError):
        return {"error": "ValueError: the answer is damaged"}
    if not isinstance(answer, dict) or ("result" in answer) == ("error" in answer):
        return {"error": "ValueError: the answer has no result"}
    number = {"number": answer.get("number")}
    if "error" in answer:
        return {**number, "error": str(answer["error"])[:300]}
    wrong = problem(answer["result"])
    return {**number, "error": f"ValueError: {wrong}"} if wrong else {**number, **answer}


def problem(result: Any) -> str | None:
    """Why ``result`` cannot be compared; ``None`` where it can. Its depth may be anything."""
    level = [result]
    for _ in range(DEEPEST):
        if any(isinstance(value, int) and abs(value) > LARGEST for value in level):
            return "the result has a whole number of more than 308 digits"
        level = [item for value in level for item in _items(value)]
        if not level:
            return None
    return f"the result is nested more than {DEEPEST} deep"


def memory(result: Any) -> int:
    """About how many bytes a result takes here: 64 a value, and its letters."""
    taken, left = 0, [result]
    while left:
        value = left.pop()
        taken += 64 + (len(value) if isinstance(value, str) else 0)
        left += _items(value)
    return taken


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
