"""Execution accuracy: the share of rows whose written code gives what the reference's code gives.

Both run on the row's table, in a process of their own (``plugins/sandbox``). Equal results are not
equal programs: on a small table a wrong query can give the right rows, an empty result most easily
(Zhong et al., 2010.02840). Exact match is the stricter sibling.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from holdfast.core.records import Floats
from holdfast.metrics.texts import EXECUTION, TextMetric, Texts
from holdfast.plugins.sandbox.runner import ProgramOutcome, check_machine, run_programs
from holdfast.plugins.sandbox.same import is_ordered, same_result

SECONDS, MEMORY_MB = 5.0, 512


def execution_metric(
    language: str, *, seconds: float = SECONDS, memory_mb: int = MEMORY_MB, unsafe: bool = False
) -> TextMetric:
    """The metric for ``sql`` or ``pandas``, in [0, 1]. A row without a table, or whose reference
    does not run, has none. What a reference gave is remembered, since it is asked at every look.
    ``unsafe`` allows a machine whose kernel cannot keep the code in.

    Raises ``MachineError`` where the system cannot run code safely.
    """
    check_machine(language, unsafe)
    known: dict[tuple[str, str], ProgramOutcome] = {}

    def rows(made: Texts) -> Floats:
        tables = made.tables or [None] * len(made)
        asked = [
            (code, table)
            for code, table in zip(made.references, tables, strict=True)
            if table is not None
        ]
        # A process for each: equal questions about one table are asked once.
        new = [pair for pair in dict.fromkeys(asked) if pair not in known]
        known.update(zip(new, _run(new), strict=True))
        wanted = [
            None if t is None else known[code, t]
            for code, t in zip(made.references, tables, strict=True)
        ]
        return _compared(made, wanted)

    def _run(pairs: list[tuple[str, str]]) -> list[ProgramOutcome]:
        return run_programs(pairs, language, seconds=seconds, memory_mb=memory_mb, unsafe=unsafe)

    def _compared(made: Texts, wanted: list[ProgramOutcome | None]) -> Floats:
        values = np.full(len(made), np.nan)
        runs = [
            i for i, outcome in enumerate(wanted) if outcome is not None and outcome.error is None
        ]
        found = _run([(made.texts[i], str((made.tables or [])[i])) for i in runs])
        for i, outcome in zip(runs, found, strict=True):
            reference = wanted[i]
            assert reference is not None
            ordered = is_ordered(made.references[i], language)
            values[i] = outcome.error is None and same_result(
                outcome.result, reference.result, ordered
            )
        return values

    return replace(EXECUTION, of_rows=rows)
