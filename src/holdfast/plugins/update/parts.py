"""The parts of validation rows in which no update may be worse: classes, what the run confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.analyses.fairness.groups import Grouping
from holdfast.analyses.row_texts import read_texts
from holdfast.analyses.slices.conditions import RowFacts, as_category, condition_of
from holdfast.data.table import Table
from holdfast.plugins.update.gate import RowPart


def parts_of(
    result: Mapping[str, Any], table: Table, columns: Mapping[str, Sequence[Any]]
) -> tuple[tuple[RowPart, ...], tuple[str, ...]]:
    """The classes of the rows, and the slices and groups that the run's ``result.json`` says were
    confirmed; and those that cannot be found again in other rows (topics), in words. ``columns``
    are those beside the text."""
    found, lost = [], []
    if table.classes and table.columns.one_class:
        labels = np.asarray(table.column("label"))
        found += [RowPart(name, "class", labels == k) for k, name in enumerate(table.classes)]
    facts = RowFacts(len(table), read_texts(table), columns)
    for one in (result.get("slices") or {}).get("found") or ():
        condition = condition_of(one["condition"])
        if condition is None:
            lost.append(str(one["slice"]))
        else:
            found.append(RowPart(str(one["slice"]), "slice", condition.holds(facts)))
    groups = ((result.get("fairness") or {}).get("groups") or {}).get("findings") or ()
    for column, group in dict.fromkeys((one["column"], one["group"]) for one in groups):
        cells = columns.get(column)
        if cells is None:
            lost.append(f"{column} = {group}")
            continue
        inside = Grouping(column, [as_category(cell) for cell in cells]).inside(group)
        found.append(RowPart(f"{column} = {group}", "group", inside))
    return tuple(found), tuple(lost)
