"""Rows that differ from another in a share of their words that was asked for."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.pairs import EXAMPLES, LISTED, most_alike_first, ranked_rows
from holdfast.quality.views import Copied


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
    groups, ids = gathered.copies.groups, copied.rows.ids
    # The source comes first: a pair of two other files has both ends beyond it.
    pairs = pairs.where((pairs.first < span.stop) & (groups[pairs.first] != groups[pairs.second]))
    if not len(pairs):
        return None
    pairs = most_alike_first(pairs)
    named = [row for row in ranked_rows(pairs) if row < span.stop]
    across = len(np.unique(pairs.first[pairs.second >= span.stop]))
    files = f", {across} of them from a row of another file" if across else ""
    examples = []
    for n in range(min(EXAMPLES, len(pairs))):
        name = gathered.owner(int(pairs.second[n]))
        table, place = gathered.tables[name], int(pairs.second[n]) - gathered.starts[name]
        examples.append(
            CheckExample(
                int(ids[pairs.first[n]]),
                f"similarity {pairs.similarity[n]:.2f}",
                int(table.column("row")[place]),
                None if name == "source" else table.source,
            )
        )
    return result(
        ids[named[:LISTED]],
        f"{counted(len(named), 'row differs', 'rows differ')} from another in more than one word "
        f"in eight and at most {loose.share:.0%} of the words ({counted(len(pairs), 'pair')} of "
        f"texts){files}",
        "Look at the examples: forms with a slot are no copies. Where they are, give them a group "
        "(--group), so that no side tests what another has learned.",
        score=len(named) / len(ids),
        severity="info",
        count=len(named),
        examples=examples,
    )
