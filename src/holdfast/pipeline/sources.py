"""Rows of several sources in one table: how much each source weighs, and how each is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Outputs
from holdfast.data.mix import SOURCE
from holdfast.data.table import Table
from holdfast.evaluate.out_of_fold import score_out_of_fold
from holdfast.evaluate.score import score


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
    found = {}
    for name in sorted(set(sources.tolist())):
        here = np.flatnonzero(sources == name)
        own = replace(
            outputs,
            rows=outputs.rows[here],
            labels=outputs.labels[here],
            logits=outputs.logits[here],
            losses=outputs.losses[here],
            groups=None if outputs.groups is None else outputs.groups[here],
        )
        made = score_out_of_fold(own, classes, folds) if folds else score(own, classes)
        found[name] = {"n": made.n, "metrics": made.to_json()["metrics"]}
    return found
