"""Weights with which groups of training rows and their classes no longer go together.

Rows of several sources in one table: how much each source weighs, and how each is scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.contract.result import brief
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, Outputs
from holdfast.data.columns.roles import check_present
from holdfast.data.mix import SOURCE
from holdfast.data.raw import Raw
from holdfast.data.table import Table
from holdfast.metrics.score import score, score_out_of_fold
from holdfast.tasks.lines import take_rows

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
    weights = np.minimum(of_group * of_label / (n * count[pair]), MOST)
    return np.asarray(weights * n / weights.sum())


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


def source_weights(
    table: Table, weights: Mapping[str, float] | None, temperature: float | None
) -> tuple[Floats | None, tuple[Decision, ...]]:
    """How much each training row weighs [n], 1 on average, by its source; ``None`` where all weigh
    alike.

    ``weights`` multiply a source's rows. At the ``temperature`` T a source of n rows counts as
    n^(1/T) (1907.05019): as many as it has at 1, all sources alike as T grows.

    Raises ``RecipeError`` where one of them is given and the rows' sources are not known.
    """
    if not (weights or temperature):
        return None, ()
    if SOURCE not in table.rows.column_names:
        remedy = (
            "Name the column of sources with data.source, which is read for text-classification "
            "and which a file of validation rows needs too; or leave this out."
        )
        rule = "is of sources, and which source each row is of is not known"
        raise RecipeError(
            "data.weights" if weights else "data.temperature",
            rule,
            dict(weights) if weights else temperature,
            remedy,
        )
    sources = np.asarray(table.column(SOURCE), dtype=object)
    names, place, counts = np.unique(sources, return_inverse=True, return_counts=True)
    for name in weights or {}:
        if name not in names:
            rule, known = "names a source that is not there", ", ".join(map(str, names))
            raise RecipeError("data.weights", rule, name, f"There are: {known}.")
    each = np.array([float((weights or {}).get(name, 1.0)) for name in names])
    if temperature:
        each = each * counts ** (1 / temperature - 1)
    each = each * len(sources) / (each * counts).sum()
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, each, strict=True))
    because = "a row's part in the updates, by its source; the linear probe takes rows alike"
    return np.asarray(each[place]), (Decision("weights of sources", shown, because),)


def scores_by_source(
    outputs: Outputs, table: Table, classes: tuple[str, ...], folds: int = 0
) -> dict[str, dict[str, Any]] | None:
    """Each source's rows among these, scored by themselves: ``{name: {n, metrics}}``; ``None``
    where rows have no source. ``folds``: out of how many they were answered, 0 for none."""
    if SOURCE not in table.rows.column_names:
        return None
    sources = np.asarray(table.column(SOURCE), dtype=object)
    source_scores = {}
    for name in sorted(set(sources.tolist())):
        here = np.flatnonzero(sources == name)
        source_outputs = take_rows(outputs, here)
        scores = (
            score_out_of_fold(source_outputs, classes, folds)
            if folds
            else score(source_outputs, classes)
        )
        source_scores[name] = brief(scores)
    return source_scores
