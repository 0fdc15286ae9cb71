"""HTML that was left in the texts: tags and entities."""

from __future__ import annotations

from holdfast.quality.check import Check, CheckResult, add, with_texts
from holdfast.quality.clean.markup import ENTITY, TAG, entities
from holdfast.quality.single import around, matching, single_finding
from holdfast.quality.views import TableRows

_MANY = 0.01


def markup(rows: TableRows) -> CheckResult | None:
    """Lists the rows with a tag or an entity that HTML knows; a warning from one row in a hundred
    on. Score: their share of the rows."""
    found = []
    for position, text in matching(rows, r"<[/a-zA-Z]|&[#a-zA-Z]"):
        match = TAG.search(text)
        if match is None and entities(text):
            match = ENTITY.search(text)
        if match is not None:
            found.append((position, around(text, match.start(), match.end())))
    many = len(found) >= _MANY * len(rows.sample)
    return single_finding(
        rows,
        "markup",
        found,
        "tags or entities of HTML",
        "If they are left over, `treat.markup` takes them out; where texts are about HTML, leave "
        "them.",
        "warn" if many else "info",
    )


add(
    Check(
        "markup",
        TableRows,
        markup,
        cannot_see="Marks of Markdown and of other languages; whether a text is about HTML.",
        error_rate="Eleven real sets, 1,500 texts each: recall 1.00 of planted tags and entities, "
        "no other row accused; of the 24 rows that it names as they are, five are about HTML.",
        holds_for=with_texts,
    )
)
