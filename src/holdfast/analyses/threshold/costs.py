"""What mistakes cost, from a CSV with the columns ``true``, ``predicted`` and ``cost``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from holdfast.core.errors import DataError
from holdfast.core.records import Floats
from holdfast.data.labels.spelling import match_spellings
from holdfast.data.source import read_source
from holdfast.runs.threshold import CostMatrix

COLUMNS = ("true", "predicted", "cost")
ANY, NOBODY = "*", ("", "null")


def read_costs(path: str, classes: Sequence[str]) -> CostMatrix:
    """The costs of each true class and answer. An empty ``predicted`` (or ``null``) is no answer;
    ``*`` stands for every class that has no line of its own. Right answers cost 0 unless a line
    says otherwise; of the others none may be missing.

    Raises ``DataError``, which names the line.
    """
    raw = read_source(path, None, None)
    if not set(COLUMNS) <= set(raw.names):
        rule = f"needs the columns {', '.join(COLUMNS)}"
        raise DataError(path, rule, ", ".join(raw.names), "E.g. true,predicted,cost.")
    lines = [raw.table[name].to_pylist() for name in COLUMNS]
    spelled = match_spellings({str(x) for one in lines[:2] for x in one if x}, classes)
    index = {name: number for number, name in enumerate(classes)}
    given: dict[tuple[int | str, int | str], float] = {}
    for place, (true, said, cost) in enumerate(zip(*lines, strict=True), start=2):
        where = f"{path}, line {place}"
        key = (
            _place(where, "true", true, spelled, index),
            len(classes)
            if str(said or "").strip().lower() in NOBODY
            else _place(where, "predicted", said, spelled, index),
        )
        if key in given:
            raise DataError(where, "gives the same cost a second time", f"{true}, {said}", "")
        given[key] = _number(where, cost)
    if not given:
        raise DataError(path, "holds no cost", None, "Give a line a kind of mistake.")
    return CostMatrix(tuple(classes), _filled(path, classes, given))


def _place(
    where: str, column: str, name: object, spelled: dict[str, str], index: dict[str, int]
) -> int | str:
    found = str(name or "").strip()
    if found == ANY:
        return ANY
    known = spelled.get(found, found)
    if known not in index:
        raise DataError(
            where, f"names a class in {column!r} that the run has not", found, ", ".join(index)
        )
    return index[known]


def _number(where: str, cost: object) -> float:
    try:
        found = float(str(cost))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(where, "has a cost that is no number", cost, "Write e.g. 2.5.")
    return found


def _filled(
    path: str, classes: Sequence[str], given: dict[tuple[int | str, int | str], float]
) -> Floats:
    count = len(classes)
    table = np.full((count, count + 1), math.inf)
    for true in range(count):
        for said in range(count + 1):
            # A line of its own comes first, then one for all true classes, then for all answers.
            keys: list[tuple[int | str, int | str]] = [(true, said), (ANY, said)]
            keys += [(true, ANY), (ANY, ANY)] if said < count and said != true else []
            found = next((given[key] for key in keys if key in given), None)
            if found is None and said == true:
                found = 0.0
            if found is None and said < count:
                rule = "does not say what it costs to take one class for another"
                pair = f"{classes[true]!r} for {classes[said]!r}"
                raise DataError(path, rule, pair, "Add that line, or *,*,1 for all others.")
            table[true, said] = math.inf if found is None else found
    nobody = np.isfinite(table[:, count])
    if nobody.any() and not nobody.all():
        name = classes[int(np.argmin(nobody))]
        rule = "says what no answer costs for some classes, not for all"
        raise DataError(path, rule, name, "Add a line *,,1 for all others.")
    return table
