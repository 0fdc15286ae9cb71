"""Feedback in odd letters: look-alikes within a word, and scripts that the run has never seen.

Copies, leaks and corrections are told by normal forms, in which look-alike letters are Latin ones;
this is what is reported of such rows, whether they copy another row or not.
"""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from holdfast.core.records import Ints
from holdfast.data.table import Table
from holdfast.data.texts.general import ANY
from holdfast.duplicates.words import RowTexts
from holdfast.quality.clean.texts import MIXED

SCRIPTS = (
    *("Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Georgian", "Greek", "Han"),
    *("Hangul", "Hebrew", "Hiragana", "Katakana", "Latin", "Tamil", "Telugu", "Thai"),
)


def mixed_words(table: Table) -> tuple[Ints, str]:
    """The positions of rows with a word of Latin letters and of others that look like them, as
    ``audit`` finds them, and the first such word with its code points; none: an empty text."""
    texts = RowTexts(table)
    found, first = [], ""
    for position in _holding(texts, ANY).tolist():
        if (word := MIXED.search(texts[position])) is not None:
            found.append(position)
            first = first or f"{word[0]!r} is {word[0]!a}"
    return np.array(found, dtype=np.int64), first


def new_scripts(table: Table, known: Table) -> dict[str, Ints]:
    """By script, the positions of rows with a letter of it, where no row of ``known`` has one."""
    texts, old = RowTexts(table), RowTexts(known)
    found = {name: _holding(texts, rf"\p{{{name}}}") for name in SCRIPTS}
    return {
        name: rows
        for name, rows in found.items()
        if len(rows) and not len(_holding(old, rf"\p{{{name}}}"))
    }


def _holding(texts: RowTexts, pattern: str) -> Ints:
    matched = pc.match_substring_regex(texts.arrow(0, len(texts)), pattern)
    return np.asarray(pc.indices_nonzero(pc.fill_null(matched, False)), dtype=np.int64)
