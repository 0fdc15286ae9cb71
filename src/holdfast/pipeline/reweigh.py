"""Weights with which groups of training rows and their classes no longer go together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.data.raw import Raw
from holdfast.data.roles import check_present
from holdfast.data.table import Table

REWEIGH = "reweigh"
# A rare pair weighs no more than so many rows: above it single rows would lead an update.
MOST = 10.0


def with_groups_to_weigh(table: Table, raw: Raw, name: str) -> Table:
    """The table with the cells of the column ``name`` of its source as the column ``reweigh``.

    Raises ``DataError`` where the column is not there.
    """
    check_present(raw, name)
    cells = raw.table[name].take(pa.array(table.column("row"), pa.int64())).to_pylist()
    rows: Any = table.rows
    return replace(table, rows=rows.add_column(REWEIGH, ["" if c is None else c for c in cells]))


def reweighed(groups: Ints, labels: Ints) -> Floats:
    """The weight of each row [n]: n_g n_y ÷ (n n_gy) (Kamiran and Calders 2012), at most ``MOST``,
    then 1 on average. Where no pair reaches that limit, every class has the same share of the
    weight in every group."""
    n = len(groups)
    both = np.unique(np.stack([groups, labels]), axis=1, return_inverse=True, return_counts=True)
    pair, count = np.asarray(both[1]).reshape(-1), both[2]
    of_group, of_label = np.bincount(groups)[groups], np.bincount(labels)[labels]
    found = np.minimum(of_group * of_label / (n * count[pair]), MOST)
    return np.asarray(found * n / found.sum())


def group_weights(
    table: Table, column: str | None, enriched: bool
) -> tuple[Floats | None, tuple[Decision, ...]]:
    """How much each training row weighs [n], and what is told of it; ``None`` where no ``column``
    is asked for. Raises ``RecipeError`` beside ``enrich``, and for rows without a class."""
    if column is None:
        return None, ()
    if REWEIGH not in table.rows.column_names:
        rule = "is for text-classification with one class a text"
        raise RecipeError("data.reweigh", rule, column, "Leave it out.")
    if enriched:
        rule = "weighs rows, and other forms of rows bear no weight"
        remedy = "Leave one of them out; enrich.counterfactual alone often suffices."
        raise RecipeError("data.reweigh with enrich", rule, None, remedy)
    cells = np.asarray(table.column(REWEIGH), dtype=object).astype(str)
    names, groups = np.unique(cells, return_inverse=True)
    weights = reweighed(groups.reshape(-1), table.column("label"))
    shown = f"{weights.min():.3g} to {weights.max():.3g} over {len(names)} groups"
    because = "rows of a group and class weigh as if groups and classes were independent"
    return weights, (Decision("weights of groups", shown, because),)
