"""Nearly the same text with different labels: one of them is likely to be wrong."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_classes
from holdfast.quality.views import Copied

EXAMPLES = 8
LISTED = 100


@check(
    Copied,
    cannot_see="Which of the two labels is wrong, and conflicts between texts of which more "
    "than one word in eight differs.",
    error_rate="Of BANKING77's 8 pairs 2 have a label that is wrong by our reading; in the "
    "others the differing word decides (a card, a transfer), and both are right.",
    holds_for=with_classes,
)
def conflicting_near_duplicates(copied: Copied) -> CheckResult | None:
    """Lists the rows of verified near-copies whose labels differ, the most alike first; texts that
    are the same but for case, space and punctuation are ``conflicting_labels``. Score: the share of
    the labelled rows."""
    gathered, rows = copied.gathered, copied.rows
    stop, pairs = gathered.span("source").stop, gathered.copies.near_pairs()
    pairs = pairs.where((pairs.first < stop) & (pairs.second < stop))
    one, other = rows.labels[pairs.first], rows.labels[pairs.second]
    pairs = pairs.where((one >= 0) & (other >= 0) & (one != other))
    if not len(pairs):
        return None
    order = np.lexsort((pairs.second, pairs.first, -pairs.similarity))
    both = np.column_stack([pairs.first[order], pairs.second[order]])
    named, ids = dict.fromkeys(both.ravel().tolist()), rows.ids
    classes = rows.table.classes
    a, b = both[0]
    return result(
        ids[list(named)[:LISTED]],
        f"{counted(len(pairs), 'pair')} of texts that differ in few words "
        f"{'has' if len(pairs) == 1 else 'have'} different labels, e.g. row {ids[a]} "
        f"{classes[rows.labels[a]]!r}, row {ids[b]} {classes[rows.labels[b]]!r}",
        "Read both: correct the label that is wrong, and leave what the differing word decides.",
        score=len(named) / max(1, int((rows.labels >= 0).sum())),
        severity="warn" if pairs.similarity.max() >= 1 else "info",
        count=len(named),
        examples=(
            CheckExample(int(ids[one]), "nearly the same text, another label", int(ids[other]))
            for one, other in both[:EXAMPLES].tolist()
        ),
    )
