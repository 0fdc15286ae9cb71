"""Classes with so few rows that their own score will be a guess."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import listing
from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.rows import class_counts
from holdfast.quality.views import TableRows

_FEW = 20


@check(
    TableRows,
    cannot_see="Whether the few rows are typical.",
    error_rate="Counts: never wrong about the rows.",
    holds_for=with_classes,
)
def thin_classes(rows: TableRows) -> CheckResult | None:
    """Says which classes have fewer than 20 rows: at 15 % for the test, at most three of them.

    Silent where no class is so small. Score: the share of the classes that are.
    """
    table = rows.table
    counts = class_counts(table)
    thin = np.flatnonzero((counts > 0) & (counts < _FEW))
    if not len(thin):
        return None
    named = [f"{table.classes[c]!r} {counts[c]}" for c in thin]
    return result(
        (),
        f"classes with fewer than {_FEW} rows: {listing(named, 5, ', ', ' and {} more')}",
        "See whether one is another class misspelt; add rows of the others, and do not trust the "
        "score of a single one of them.",
        score=len(thin) / len(table.classes),
        severity="info",
        count=int(counts[thin].sum()),
    )
