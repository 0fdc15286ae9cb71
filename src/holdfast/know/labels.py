"""The labels of a table's rows as the source writes them, whatever the task."""

from __future__ import annotations

from typing import Any

from holdfast.data.table import Table


def given_labels(table: Table) -> list[Any]:
    """The label of each row, [n]: a class (``None`` where it is not known), a list of labels or of
    tags, a number, or the text that is to be written; ``None`` where rows have none. A table holds
    classes, labels and tags as indices, which no answer is to be compared with."""
    names = table.rows.column_names
    for column in ("tags", "labels"):
        if column in names:
            return [[table.names[k] for k in row] for row in table.column(column)]
    if "value" in names:
        return [float(value) for value in table.column("value")]
    if "target" in names:
        return list(table.column("target"))
    if "label" in names and table.classes:
        return [table.classes[k] if k >= 0 else None for k in table.column("label")]
    return [None] * len(table)
