"""White space as a reader sees it: single spaces, lines without ends, at most one empty line.

Not for programs, whose indentation means something.
"""

from __future__ import annotations

import re

from holdfast.quality.clean.treatment import NoSettings, RowTreatment, add

_WIDE = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_RUN = re.compile(f"[ \t{_WIDE}]+")
_LINE = re.compile(r" *(?:\r\n?|\n) *")
_EMPTY = re.compile(r"\n{3,}")


def spaced(text: str, settings: NoSettings | None = None) -> str:
    """The text with single spaces.

    >>> spaced("  one\\u00a0 two \\r\\n three ")
    'one two\\nthree'
    """
    return _EMPTY.sub("\n\n", _LINE.sub("\n", _RUN.sub(" ", text))).strip(" \n")


add(
    RowTreatment(
        "space",
        NoSettings,
        spaced,
        seen=r"[\t\r\x{a0}\x{1680}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}]|  | \n|\n |\n\n\n|"
        r"^[ \n]|[ \n]$",
        because="had white space that nobody sees",
        order=40,
    )
)
