"""How many rows of which group and class would make groups and classes independent?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Ints


def rows_to_add(
    groups: Sequence[str | None], labels: Ints, classes: Sequence[str]
) -> list[dict[str, object]]:
    """The fewest rows that, added to these [n], give every group the classes at the rates of all
    rows: ``{group, class, rows, add}`` of each pair that lacks some.

    A group with n_gy rows of class y needs s = max_y n_gy ÷ P(y) rows in all, so s P(y) of each
    class, of which n_gy are there. Rows without a group or class are left out.
    """
    known = [k for k, group in enumerate(groups) if group is not None and labels[k] >= 0]
    names = sorted({str(groups[k]) for k in known})
    counts = np.zeros((len(names), len(classes)))
    for k in known:
        counts[names.index(str(groups[k])), labels[k]] += 1
    rates = counts.sum(axis=0) / max(1, len(known))
    found: list[dict[str, object]] = []
    for group, held in zip(names, counts, strict=True):
        there = rates > 0
        whole = float((held[there] / rates[there]).max()) if there.any() else 0.0
        for y, name in enumerate(classes):
            # A hair above a whole number is rounding.
            add = math.ceil(whole * float(rates[y]) - held[y] - 1e-9)
            if add > 0:
                found.append({"group": group, "class": name, "rows": int(held[y]), "add": add})
    return found
