"""Classes of very different size: accuracy then says little."""

from __future__ import annotations

from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.rows import class_counts
from holdfast.quality.views import TableRows

_SHARE = 0.8
_RATIO = 20


@check(
    TableRows,
    cannot_see="Whether the skew is that of the world.",
    error_rate="Counts: never wrong about the rows.",
    holds_for=with_classes,
)
def class_imbalance(rows: TableRows) -> CheckResult | None:
    """Warns where one class holds 80 % of the rows or more, or 20 times those of another.

    Silent with fewer than two classes present. Score: the share of the largest class.
    """
    table = rows.table
    counts = class_counts(table)
    present = counts[counts > 0]
    if len(present) < 2:
        return None
    largest, smallest = int(counts.argmax()), int(present.min())
    share = float(counts.max() / counts.sum())
    if share < _SHARE and counts.max() < _RATIO * smallest:
        return None
    # The first of equally rare ones; classes without a row are not among them.
    rarest = table.classes[counts.tolist().index(smallest)]
    return result(
        (),
        f"{table.classes[largest]!r} has {counts.max()} of {counts.sum()} rows, {rarest!r} has "
        f"{smallest}: always answering {table.classes[largest]!r} is right {share:.0%} of the time",
        "Read macro F1 and the scores by class beside the accuracy; where rare classes count as "
        "much, answer so: --set methods.balance.by=none --set methods.balance.target=half.",
        score=share,
        count=int(counts.max()),
    )
