"""Execution accuracy: the share of rows whose generated code gives the same result as the
reference's code.

Both run on the row's table, in their own process (``plugins/sandbox``). Equal results do not imply
equal programs: on a small table a wrong query can give the correct rows, an empty result most
easily (Zhong et al., 2010.02840). Exact match is the stricter sibling.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.metrics.texts import EXECUTION, TextMetric, Texts
from holdfast.plugins.sandbox.runner import ProgramOutcome, check_machine, run_programs

SECONDS, MEMORY_MB = 5.0, 512
TOLERANCE = 1e-6
_ORDERED = {
    "sql": re.compile(r"\border\s+by\b", re.IGNORECASE),
    "pandas": re.compile(r"\.(sort_values|sort_index|nlargest|nsmallest)\b|\bsorted\("),
}


def execution_metric(
    language: str, *, seconds: float = SECONDS, memory_mb: int = MEMORY_MB, unsafe: bool = False
) -> TextMetric:
    """The metric for ``sql`` or ``pandas``, in [0, 1].

    A row without a table, or whose reference does not run, has no score. Results of references are
    cached, since every evaluation needs them. ``unsafe`` allows a machine whose kernel cannot
    isolate the code. Raises ``MachineError`` where the system cannot run code safely.
    """
    check_machine(language, unsafe)
    reference_outcomes: dict[tuple[str, str], ProgramOutcome] = {}

    def run(pairs: list[tuple[str, str]]) -> list[ProgramOutcome]:
        return run_programs(pairs, language, seconds=seconds, memory_mb=memory_mb, unsafe=unsafe)

    def score_rows(generated: Texts) -> Floats:
        tables = generated.tables or [None] * len(generated)
        references = {
            i: (code, table)
            for i, (code, table) in enumerate(zip(generated.references, tables, strict=True))
            if table is not None
        }
        # A process for each: equal programs on one table run once.
        new = [
            pair for pair in dict.fromkeys(references.values()) if pair not in reference_outcomes
        ]
        reference_outcomes.update(zip(new, run(new), strict=True))
        values = np.full(len(generated), np.nan)
        valid = {
            i: pair for i, pair in references.items() if reference_outcomes[pair].error is None
        }
        outcomes = run([(generated.texts[i], table) for i, (_, table) in valid.items()])
        for (i, pair), outcome in zip(valid.items(), outcomes, strict=True):
            same = same_result(
                outcome.result, reference_outcomes[pair].result, is_ordered(pair[0], language)
            )
            values[i] = outcome.error is None and same
        return values

    return replace(EXECUTION, of_rows=score_rows)


def is_ordered(code: str, language: str) -> bool:
    """Whether the code requests an order, so that the order of its rows is part of its result."""
    return bool(_ORDERED[language].search(code))


def same_result(first: object, second: object, ordered: bool) -> bool:
    """Whether two results are equal: numbers within a millionth of each other, integer or not;
    texts exactly; the rows of a list in any order unless ``ordered``. A missing value equals a
    missing value.

    Results are untrusted, and this never raises: two that cannot be compared are not equal.
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
            first, second = sorted(first, key=_sort_key), sorted(second, key=_sort_key)
        # The cells of a row have an order, even where its rows have none.
        return all(_same(a, b, True) for a, b in zip(first, second, strict=True))
    if _is_number(first) and _is_number(second):
        # Sums in another order differ in the last digits, and SQL has integers where pandas has
        # floats.
        return math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(first) is type(second) and bool(first == second)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sort_key(value: Any) -> Any:
    """A sort key for values of any kind, under which nearly equal numbers are neighbours."""
    if isinstance(value, list):
        return (3, [_sort_key(item) for item in value])
    if _is_number(value):
        return (1, float(value))
    return (0, "") if value is None else (2, str(value))
