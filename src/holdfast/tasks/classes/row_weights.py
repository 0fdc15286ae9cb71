"""Training-row weights that remove the association between groups and classes, and weights of
sources.

With several sources in one table: how much each source weighs, and its own score.
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
# A rare pair weighs no more than this many rows: above it single rows would dominate an update.
MOST = 10.0


def with_groups_to_weigh(table: Table, raw: Raw, name: str) -> Table:
    """The table with the cells of the source's column ``name`` as the column ``reweigh``.

    Raises ``DataError`` where the column is missing.
    """
    check_present(raw, name)
    cells = raw.table[name].take(pa.array(table.column("row"), pa.int64())).to_pylist()
    rows: Any = table.rows
    return replace(table, rows=rows.add_column(REWEIGH, ["" if c is None else c for c in cells]))


def reweighed(groups: Ints, labels: Ints) -> Floats:
    """The weight of each row [n]: n_g n_y ÷ (n n_gy) (Kamiran and Calders 2012), at most ``MOST``,
    then scaled to a mean of 1. Where no pair reaches that limit, every class has the same share of
    the weight in every group.
    """
    n = len(groups)
    both = np.unique(np.stack([groups, labels]), axis=1, return_inverse=True, return_counts=True)
    pair, count = np.asarray(both[1]).reshape(-1), both[2]
    of_group, of_label = np.bincount(groups)[groups], np.bincount(labels)[labels]
    weights = np.minimum(of_group * of_label / (n * count[pair]), MOST)
    return np.asarray(weights * n / weights.sum())


def group_weights(table: Table, column: str | None) -> tuple[Floats | None, tuple[Decision, ...]]:
    """The weight of each training row [n] and the decision about it; ``None`` without a ``column``.

    Raises ``RecipeError`` for rows without a class.
    """
    if column is None:
        return None, ()
    if REWEIGH not in table.rows.column_names:
        rule = "applies to text-classification with one class a text"
        raise RecipeError("data.reweigh", rule, column, "Leave it out.")
    cells = np.asarray(table.column(REWEIGH), dtype=object).astype(str)
    names, groups = np.unique(cells, return_inverse=True)
    weights = reweighed(groups.reshape(-1), table.column("label"))
    shown = f"{weights.min():.3g} to {weights.max():.3g} over {len(names)} groups"
    because = "weights as if groups and classes were independent"
    return weights, (Decision("weights of groups", shown, because),)


def source_weights(
    table: Table, weights: Mapping[str, float] | None, temperature: float | None
) -> tuple[Floats | None, tuple[Decision, ...]]:
    """The weight of each training row [n] by its source, 1 on average; ``None`` where all weigh the
    same.

    ``weights`` multiply a source's rows. At the ``temperature`` T a source of n rows counts as
    n^(1/T) (1907.05019): in proportion to its rows at 1, and all sources equally as T grows.

    Raises ``RecipeError`` where one of them is given and the rows' sources are not known.
    """
    if not (weights or temperature):
        return None, ()
    if SOURCE not in table.rows.column_names:
        remedy = (
            "Name the column of sources with data.source (for text-classification; a "
            "validation file needs the column too), or leave this setting out."
        )
        rule = "needs the source of each row, which is not known"
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
            rule, known = "names a source that does not exist", ", ".join(map(str, names))
            raise RecipeError("data.weights", rule, name, f"The sources are: {known}.")
    each = np.array([float((weights or {}).get(name, 1.0)) for name in names])
    if temperature:
        each = each * counts ** (1 / temperature - 1)
    each = each * len(sources) / (each * counts).sum()
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, each, strict=True))
    because = "weight of a row in training, by its source; the linear probe weighs all rows equally"
    return np.asarray(each[place]), (Decision("weights of sources", shown, because),)


def scores_by_source(
    outputs: Outputs, table: Table, classes: tuple[str, ...], folds: int = 0
) -> dict[str, dict[str, Any]] | None:
    """The score of each source's rows: ``{name: {n, metrics}}``; ``None`` where rows have no
    source.

    ``folds`` is the number of folds that predicted the rows, 0 for none.
    """
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
