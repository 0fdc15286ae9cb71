"""Where a search begins: a handful of settings that did well on sets of other people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats

# What the recorded arena (benchmarks/arena, 160 training rows of three sets) has after the default,
# by ``greedy``.
LEARNT: tuple[dict[str, Any], ...] = ()
# The rows, and the line of the table of defaults, that it was learned on and may speak of.
LEAST_ROWS, MOST_ROWS, MODEL = 80, 400, "small"


def portfolio(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings to try first, the default (an empty one) before all.

    ``facts`` of the rows and the model: ``task``, ``train_rows``, ``classes`` (0 where a row has
    not one class) and ``model``, the line of the table of defaults. That table is what was learned
    of the first setting, by rows and classes and model; what stands behind it here was measured on
    texts with one class each, a small model, and some hundred rows, and nothing is said of others:
    there the default stands alone.
    """
    of_texts = facts["task"] == "text-classification" and facts["classes"] > 0
    known = facts["model"] == MODEL and LEAST_ROWS <= facts["train_rows"] <= MOST_ROWS
    return [{}, *(dict(one) for one in LEARNT)] if of_texts and known else [{}]


def greedy(gains: Floats, size: int) -> list[int]:
    """The places of at most ``size`` settings, the best to begin with first.

    ``gains`` [settings, sets] over the default, place 0. The default comes first; each next is the
    one that raises the mean over the sets of the best so far most, as long as one does: by chance
    alone the best of many would be raised, so that the gains must be of rows that are many.
    Raises ``Defect`` for a table without a setting or a set.
    """
    table = np.asarray(gains, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise Defect("the table of a portfolio", "needs settings and sets", table.shape)
    chosen, best = [0], table[0]
    while len(chosen) < size:
        raised = np.maximum(table, best).mean(axis=1)
        place = int(raised.argmax())
        if raised[place] <= best.mean():
            break
        chosen.append(place)
        best = np.maximum(best, table[place])
    return chosen
