"""HTML that was left in the texts: tags and entities."""

from __future__ import annotations

from holdfast.quality.clean.markup import ENTITY, TAG, entities
from holdfast.quality.single import around, text_check


@text_check(
    "tags or entities of HTML",
    "If they are left over, `treat.markup` takes them out; where texts are about HTML, leave them.",
    pattern=r"<[/a-zA-Z]|&[#a-zA-Z]",
    warns_from=0.01,
    cannot_see="Marks of Markdown and of other languages; whether a text is about HTML.",
    error_rate="Eleven real sets, 1,500 texts each: recall 1.00 of planted tags and entities, "
    "no other row accused; of the 24 rows that it names as they are, five are about HTML.",
)
def markup(text: str) -> str | None:
    """Lists the rows with a tag or an entity that HTML knows; a warning from one row in a hundred
    on. Score: their share of the rows."""
    match = TAG.search(text)
    if match is None and entities(text):
        match = ENTITY.search(text)
    return around(text, *match.span()) if match else None
