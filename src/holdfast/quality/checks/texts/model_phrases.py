"""Texts in which a language model speaks of itself: made by a machine, whoever signed them.

Nothing else is said of machine-made texts: what tells them apart in one collection fails in the
next, and an accusation that is wrong costs more than one that is missing.
"""

from __future__ import annotations

import re

from holdfast.data.texts.phrases import PHRASES
from holdfast.quality.single import around, text_check

_PHRASES = re.compile(PHRASES)


@text_check(
    "words that a language model says of itself, or left to be filled in",
    "They were made by a machine: if rows should be people's, look at where these come from, "
    "and leave them out (`treat.rows`).",
    pattern=PHRASES,
    cannot_see="All other machine-made texts, which are nearly all of them.",
    error_rate="Of 3,283 texts made by machines it finds 49 (1.5 %), in essays alone; of "
    "2,128 by people none, and of 48,000 others three, letters with gaps that were asked for.",
)
def model_phrases(text: str) -> str | None:
    """Lists the rows with what only a language model says (``as an AI language model``), marks of
    chat templates, or a gap to be filled in (``[Your Name]``). Score: their share of the rows."""
    match = _PHRASES.search(text)
    return around(text, *match.span()) if match else None
