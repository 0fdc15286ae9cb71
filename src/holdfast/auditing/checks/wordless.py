"""Texts without any letter or digit, such as ``...`` or ``--``."""

from __future__ import annotations

import re

from holdfast.auditing.checks import CHECKS
from holdfast.auditing.rows import texts
from holdfast.core.records import Finding
from holdfast.data.table import Table

_WORD = re.compile(r"[^\W_]")


def wordless_texts(table: Table) -> Finding | None:
    """Lists the rows whose text has no letter and no digit of any script. They may mean something
    (an emoji), so this is for information. Score: their share of the rows."""
    found = [
        start + n
        for start, batch in texts(table)
        for n, text in enumerate(batch)
        if not _WORD.search(text)
    ]
    if not found:
        return None
    rows = table.column("row")
    example = table.rows[found[0]]["text"].strip()
    plural = "s have" if len(found) > 1 else " has"
    return Finding(
        "wordless_texts",
        "info",
        len(found) / len(table),
        len(found),
        tuple(int(rows[position]) for position in found),
        f"{len(found)} text{plural} neither a letter nor a digit, e.g. {example[:40]!r}",
        "Take them out, unless such signs carry the label.",
    )


CHECKS.add("wordless_texts", wordless_texts)
