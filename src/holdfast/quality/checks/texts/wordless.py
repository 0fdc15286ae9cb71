"""Texts without any letter or digit, such as ``...`` or ``--``."""

from __future__ import annotations

import re

from holdfast.quality.check import CheckResult, check, result
from holdfast.quality.rows import texts
from holdfast.quality.views import TableRows

_WORD = re.compile(r"[^\W_]")


@check(
    TableRows,
    cannot_see="Words without meaning.",
    error_rate="Exact; signs that carry a meaning are listed too.",
)
def wordless_texts(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose text has no letter and no digit of any script. They may mean something
    (an emoji), so this is for information. Score: their share of the rows."""
    table = rows.table
    found = [
        start + n
        for start, batch in texts(table)
        for n, text in enumerate(batch)
        if not _WORD.search(text)
    ]
    if not found:
        return None
    ids = rows.ids
    example = table.rows[found[0]]["text"].strip()
    plural = "s have" if len(found) > 1 else " has"
    return result(
        ids[found],
        f"{len(found)} text{plural} neither a letter nor a digit, e.g. {example[:40]!r}",
        "Take them out, unless they are meant to be there.",
        score=len(found) / len(table),
        severity="info",
    )
