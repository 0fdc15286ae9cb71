"""Rows that differ from another in a share of their words that was asked for."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.duplicates.verify import Links
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.views import Copied

EXAMPLES = 8
LISTED = 100


def unasked(copied: Copied) -> str:
    """Why nothing was looked for."""
    return "" if copied.loose is not None else "not asked for: --set audit.loose=0.3"


@check(
    Copied,
    cannot_see="Texts of fewer than five words, and the same said in other words "
    "(semantic_copies). Of texts with three tenths of their words replaced it found 97 in 100 "
    "among a million, and 26 of 30 among 230.",
    error_rate="Every pair is verified word by word. Questions of one form differ as little as "
    "copies do, and whether a pair is a copy it cannot tell: it is for looking.",
    nothing=unasked,
)
def loose_copies(copied: Copied) -> CheckResult | None:
    """Lists the rows that differ from another row, of the table or of a file that it is held
    against, in at most the share of the words that ``audit.loose`` names, and are no near-copies
    (``near_duplicates``, ``leaks``). Score: the share of the rows."""
    loose, gathered = copied.loose, copied.gathered
    if loose is None:
        return None
    pairs, span = loose.pairs(), gathered.span("source")
    groups = gathered.copies.groups
    # The source comes first: a pair of two other files has both ends beyond it.
    pairs = pairs.where((pairs.first < span.stop) & (groups[pairs.first] != groups[pairs.second]))
    if not len(pairs):
        return None
    inside = pairs.second < span.stop
    rows = np.unique(np.concatenate([pairs.first, pairs.second[inside]]))
    across = np.unique(pairs.first[~inside])
    order = np.lexsort((pairs.second, pairs.first, -pairs.similarity))
    ranked = [
        end
        for n in order.tolist()
        for end in (int(pairs.first[n]), int(pairs.second[n]))
        if end < span.stop
    ]
    ids = copied.rows.ids
    files = f", {len(across)} of them from a row of another file" if len(across) else ""
    return result(
        ids[list(dict.fromkeys(ranked))[:LISTED]],
        f"{counted(len(rows), 'row differs', 'rows differ')} from another in more than one word in "
        f"eight and at most {loose.share:.0%} of the words ({counted(len(pairs), 'pair')} of "
        f"texts){files}",
        "Look at the examples: forms with a slot are no copies. Where they are, give them a group "
        "(--group), so that no side tests what another has learned.",
        score=len(rows) / len(ids),
        severity="info",
        count=len(rows),
        examples=tuple(_example(copied, pairs, n) for n in order[:EXAMPLES].tolist()),
    )


def _example(copied: Copied, pairs: Links, n: int) -> CheckExample:
    first, second = int(pairs.first[n]), int(pairs.second[n])
    gathered = copied.gathered
    name = gathered.owner(second)
    row = int(gathered.tables[name].column("row")[second - gathered.starts[name]])
    return CheckExample(
        int(copied.rows.ids[first]),
        f"similarity {pairs.similarity[n]:.2f}",
        row,
        None if name == "source" else gathered.tables[name].source,
    )
