"""Texts with a number each: the number as it is, and its range for the division."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Floats
from holdfast.data.labels.bins import choose_edges, place, range_names
from holdfast.data.labels.gather import Gathered, gather_labels, write_gathered
from holdfast.data.raw import Raw
from holdfast.data.table import Columns, Table

# Errors are squared, in the user's unit and in deviations of the training rows; doubles end at
# 1.8e308. Numbers of nature and of machines stay far below.
LARGEST = 1e75


def table_of_numbers(
    raw: Raw, columns: Columns, like: Table | None = None, *, fresh: bool = True
) -> Table:
    """Rows with ``value`` float64, and as ``label`` the range between quantiles that the division
    keeps in proportion (that of ``like``, where it is given). A label that is missing leaves its
    row out; one that is no finite number, or above ``LARGEST``, is refused, and so is a ``fresh``
    source of one number."""
    found = gather_labels(raw, columns)
    where = f"{raw.source}, column {columns.label!r}"
    values = _numbers(where, found)
    if not len(values):
        raise DataError(where, "holds no label at all", None, "Choose another with --label.")
    if like is None and fresh and values.min() == values.max():
        raise DataError(
            where,
            "holds one number only, so there is nothing to learn",
            float(values[0]),
            "Choose another column with --label.",
        )
    edges = choose_edges(values, found.units) if like is None else edges_of(like)
    rows = write_gathered(
        raw,
        columns,
        place(values, edges),
        "value",
        pa.float64(),
        lambda start, stop: pa.array(values[start:stop], pa.float64()),
    )
    classes = range_names(edges) if like is None else like.classes
    table = Table(rows, classes, columns, raw.source, len(raw), found.findings)
    if like is not None:
        return table
    because = "so that every side has small and large numbers alike"
    decision = Decision("ranges of the division", f"{len(classes)}, between quantiles", because)
    return replace(table, decisions=(decision,))


def edges_of(table: Table) -> Floats:
    """The upper edges of a table's ranges: each is the largest number in it."""
    values, labels = table.column("value"), table.column("label")
    return np.array([values[labels == n].max() for n in range(len(table.classes) - 1)])


def _numbers(where: str, found: Gathered) -> Floats:
    values = np.empty(len(found.written))
    for place_, text in enumerate(found.written):
        try:
            values[place_] = float(text)
        except ValueError:
            values[place_] = math.nan
        if not math.isfinite(values[place_]):
            raise DataError(
                f"{where}, row {found.rows[place_]}",
                "is no finite number",
                text,
                "Correct it or empty the cell, which leaves the row out.",
            )
        if abs(values[place_]) > LARGEST:
            raise DataError(
                f"{where}, row {found.rows[place_]}",
                "is too large for its errors to be squared",
                text,
                f"Correct it, or give all in a larger unit: up to {LARGEST:g} is taken.",
            )
    return values
