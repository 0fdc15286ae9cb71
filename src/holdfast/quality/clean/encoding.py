"""Text that was decoded by the wrong table: ``cafÃ©`` is ``café`` again.

ftfy (Speer 2019) undoes a mix-up only where the text as it stands is improbable and what comes of
it is not; text in any script that is written as it should be stays. Marks of Windows-1252 that were
read as control characters (``\\x97``) are the dashes and quotes that they were meant for.
"""

from __future__ import annotations

import re

from holdfast.quality.clean.treatment import NoSettings, RowTreatment, add

MOST_LAYERS = 6
# A letter's bytes, each read alone, are several letters, or controls, or a letter and a space.
SEEN = r"[\x{80}-\x{9f}]|[^\x00-\x7f][^\x00-\x7f]|[\x{c2}-\x{f4}][ \x1a]"
_MAY = re.compile("[\x80-\x9f]|[^\x00-\x7f][^\x00-\x7f]|[\xc2-\xf4][ \x1a]")


def repaired(text: str, settings: NoSettings | None = None) -> str:
    """The text in its own letters; what was mixed up several times is undone as often.

    >>> repaired("schÃ¶n")
    'schön'
    """
    if not _MAY.search(text):
        return text
    import ftfy

    for _ in range(MOST_LAYERS):
        before, text = text, ftfy.fix_encoding(text)
        if text == before:
            break
    return text


add(
    RowTreatment(
        "encoding",
        NoSettings,
        repaired,
        seen=SEEN,
        because="was decoded by the wrong table",
        order=10,
        answers=True,
        default=True,
        fixes=("encoding_damage",),
    )
)
