"""Whether two results of code are the same."""

from __future__ import annotations

import math
import re
from typing import Any

TOLERANCE = 1e-6
_ORDERED = {
    "sql": re.compile(r"\border\s+by\b", re.IGNORECASE),
    "pandas": re.compile(r"\.(sort_values|sort_index|nlargest|nsmallest)\b|\bsorted\("),
}


def is_ordered(code: str, language: str) -> bool:
    """Whether the code asks for an order, so that the order of its rows is part of its result."""
    return bool(_ORDERED[language].search(code))


def same_result(first: Any, second: Any, ordered: bool) -> bool:
    """Equal values: numbers within a millionth of each other, whole or not; texts to the letter;
    the rows of a list in any order unless ``ordered``. A missing value equals a missing value.

    Results are a stranger's, and this never raises: two that cannot be compared are not equal.
    """
    try:
        return _same(first, second, ordered)
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError):
        return False


def _same(first: Any, second: Any, ordered: bool) -> bool:
    if isinstance(first, list) and isinstance(second, list):
        if len(first) != len(second):
            return False
        if not ordered:
            first, second = sorted(first, key=_key), sorted(second, key=_key)
        # The cells of a row have an order, whatever the rows have.
        return all(_same(a, b, True) for a, b in zip(first, second, strict=True))
    if _is_number(first) and _is_number(second):
        # Sums in another order differ in the last digits, and SQL counts where pandas has floats.
        return math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(first) is type(second) and bool(first == second)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _key(value: Any) -> Any:
    """An order of values of any kind, in which nearly equal numbers are neighbours."""
    if isinstance(value, list):
        return (3, [_key(item) for item in value])
    if _is_number(value):
        return (1, float(value))
    return (0, "") if value is None else (2, str(value))
