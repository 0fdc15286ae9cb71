"""Rows of another file that stand inside a longer row of the source."""

from __future__ import annotations

import json

import numpy as np

from holdfast.core.wording import counted
from holdfast.data.table import Table
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.containment import RUN, SHARE, find_contained
from holdfast.quality.leaks import leaks_with
from holdfast.quality.views import Copied, TableRows, alone

SERIOUS = 0.01
EXAMPLES = 8
LISTED = 100
# Of a larger file so many rows are looked for, spread evenly.
ROWS = 100_000


@check(
    Copied,
    cannot_see="Rows of fewer than 15 words, what is said in other words, and, of files of "
    "more than 100,000 rows, those between the ones that are looked for.",
    error_rate="Runs are compared exactly; a long quotation that both quote by right counts "
    "too. Held against their own test rows TREC and SAMSum have none, BANKING77 one (rightly), "
    "an instruction set 25 of 400, which share the text that they ask about.",
    nothing=alone,
)
def contained_rows(copied: Copied) -> CheckResult | None:
    """Lists the source rows that hold a row of another table inside a longer text: seven tenths of
    its runs of eight words, but for runs that more than five rows share. Copies and near-copies are
    ``leaks``. Score: the largest share of another table's rows that are held so."""
    gathered, source = copied.gathered, copied.rows
    outer = whole_texts(source.table)
    rows, shares, told, examples = [], [0.0], [], []
    for name in copied.others:
        table = gathered.tables[name]
        step = max(1, -(-len(table) // ROWS))
        asked = np.setdiff1d(np.arange(0, len(table), step), leaks_with(gathered, name).other)
        part = TableRows(table.take(asked))
        found = find_contained(part.texts, outer)
        if not len(found):
            continue
        rows.append(found.outer)
        shares.append(len(found) * step / len(table))
        told.append(
            f"{len(found)} of the {counted(len(table), 'row')} of {table.source} "
            f"({shares[-1]:.1%}) {'stands' if len(found) == 1 else 'stand'} inside a longer row"
        )
        examples += [
            CheckExample(
                int(source.ids[found.outer[n]]),
                f"{found.share[n]:.0%} of the other's runs of {RUN} words stand here",
                int(part.ids[found.inner[n]]),
                table.source,
            )
            for n in np.argsort(-found.share, kind="stable")[:EXAMPLES].tolist()
        ]
    if not rows:
        return None
    named = np.unique(np.concatenate(rows))
    return result(
        source.ids[named][:LISTED],
        f"{'; '.join(told)} here: {SHARE:.0%} or more of their runs of {RUN} words",
        "Take these rows, or the parts that they share, out of the training rows: a model has read "
        "what it is then asked.",
        score=min(1.0, max(shares)),
        severity="error" if max(shares) >= SERIOUS else "warn",
        count=len(named),
        examples=examples[:EXAMPLES],
    )


def whole_texts(table: Table) -> list[str]:
    """All that is learned of each row: the text, and the target or every turn of a chat."""
    texts = TableRows(table).texts
    names = table.rows.column_names
    if "target" in names:
        return [f"{text}\n{more}" for text, more in zip(texts, table.column("target"), strict=True)]
    if "turns" not in names:
        return texts
    turns = [json.loads(cell) for cell in table.column("turns")]
    return [
        "\n".join(str(turn.get("content") or "") for turn in each) or text
        for text, each in zip(texts, turns, strict=True)
    ]
