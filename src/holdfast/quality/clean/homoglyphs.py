"""Letters of another script in the place of Latin ones that look the same, put right.

Only inside words with two Latin letters at least: a formula's Delta and a unit's mu are letters
that no Latin one looks like, and stay.
"""

from __future__ import annotations

import re

from holdfast.data.texts.normal import ANY, TO_LATIN
from holdfast.quality.clean.treatment import NoSettings, RowTreatment, add

_LATIN = r"[A-Za-z\u00c0-\u024f]"
MIXED = re.compile(
    rf"(?<!\w)(?=[\w'-]*{_LATIN}[\w'-]*{_LATIN})(?:{_LATIN}|['-](?=\w))*"
    rf"(?:{ANY}+(?:{_LATIN}|['-](?=\w))*)+(?!\w)"
)
SEEN = ANY


def in_one_script(text: str, settings: NoSettings | None = None) -> str:
    """The text with its mixed words in Latin letters.

    >>> in_one_script("p\\u0430ypal")
    'paypal'
    """
    return MIXED.sub(lambda word: word[0].translate(TO_LATIN), text)


add(
    RowTreatment(
        "homoglyphs",
        NoSettings,
        in_one_script,
        seen=SEEN,
        because="had letters of another script that look like its own",
        order=50,
        fixes=("mixed_scripts",),
    )
)
