"""Reasons for the answers of a service, row by row between the turns of its model.

A reason takes hundreds of passes, and everybody else waits while the model makes them: so few rows
a request, one request at a time, and after each row whoever waits is answered first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from holdfast.analyses.explain.explain import explain_asked
from holdfast.analyses.explain.explanation import Explanation
from holdfast.plugins.service.engine.engine import ModelEngine
from holdfast.plugins.service.engine.rows import asked_of
from holdfast.plugins.service.records import Full, ServiceEngine
from holdfast.plugins.service.web.faults import Fault
from holdfast.plugins.store.records import Row

MOST_WAITING = 4
SECONDS_A_ROW = 2.0
SOURCE = "the request"


class Explaining:
    """One request for reasons after the other."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def explain(self, engine: ServiceEngine, rows: Sequence[Row]) -> dict[str, Any]:
        """What ``holdfast explain --json`` says of the rows. Raises ``Full`` where others wait for
        theirs, ``InputError`` for rows that cannot be read."""
        if not isinstance(engine, ModelEngine):
            rule, remedy = "cannot be asked of this model", "Use holdfast explain."
            raise Fault(400, "/explain", rule, None, remedy, reason="not explained")
        if self._waiting >= MOST_WAITING:
            raise Full(SECONDS_A_ROW * self._waiting, "others wait for their reasons")
        self._waiting += 1
        try:
            async with self._turn:
                found = [await engine.run(partial(_explained, engine, row)) for row in rows]
        finally:
            self._waiting -= 1
        joined = tuple(replace(row, row=n) for n, one in enumerate(found) for row in one.rows)
        seconds = sum(one.seconds for one in found)
        return replace(found[0], rows=joined, seconds=seconds).to_json()


def _explained(engine: ModelEngine, row: Row) -> Explanation:
    predictor, run = engine.predictor, engine.facts.model
    return explain_asked(predictor, asked_of(predictor, [row]), run, SOURCE, rows=1)
