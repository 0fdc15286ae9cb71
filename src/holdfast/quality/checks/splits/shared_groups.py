"""Groups that stand in two files: rows of one user, source or conversation on both sides."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS
from holdfast.quality.views import Copied, alone


def grouped(copied: Copied) -> str:
    """Why there is nothing to see."""
    if not copied.gathered.tables["source"].has_groups:
        return "no column of groups is named: --group COL"
    return alone(copied)


@check(
    Copied,
    cannot_see="Groups without a column: --group names it, and unnamed_groups proposes one.",
    error_rate="Exact. Two files may use one name for two groups.",
    nothing=grouped,
)
def shared_groups(copied: Copied) -> CheckResult | None:
    """Lists the rows whose group, by the column that ``--group`` names, has rows in another table
    too. Score: the largest share of another table's rows that are of such a group."""
    gathered = copied.gathered
    source = gathered.tables["source"]
    if not source.has_groups:
        return None
    own: list[str] = source.column("group")
    hit = np.zeros(len(own), dtype=bool)
    shares, told, examples = [0.0], [], []
    for name in copied.others:
        table = gathered.tables[name]
        if not table.has_groups:
            continue
        theirs: list[str] = table.column("group")
        shared = {*own} & {*theirs}
        if not shared:
            continue
        mine = np.array([group in shared for group in own])
        hit |= mine
        rows = sum(group in shared for group in theirs)
        shares.append(rows / len(theirs))
        told.append(
            f"{counted(len(shared), 'group')} with {counted(rows, 'row')} of {table.source} "
            f"({shares[-1]:.1%})"
        )
        ids, other = copied.rows.ids, table.column("row")
        examples += [
            CheckExample(
                int(ids[own.index(g)]),
                f"both of group {g!r}",
                int(other[theirs.index(g)]),
                table.source,
            )
            for g in [group for group in dict.fromkeys(own) if group in shared][:EXAMPLES]
        ]
    if not told:
        return None
    return result(
        copied.rows.ids[hit][:LISTED],
        f"{counted(int(hit.sum()), 'row')} {'is' if hit.sum() == 1 else 'are'} of groups "
        f"({source.columns.group!r}) that stand in another file too: {'; '.join(told)}",
        "Put each group into one file: a model that knows the group answers its rows better than "
        "those of a new one. train --test FILE --group leaves such rows out of the training part.",
        score=max(shares),
        severity="error" if max(shares) >= SERIOUS else "warn",
        count=int(hit.sum()),
        examples=examples[:EXAMPLES],
    )
